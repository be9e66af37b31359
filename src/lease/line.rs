//! A line (what a proxy reports about one account) and its answer, both in the form in which the script exchanges them.

use crate::base::units::Timestamp;
use crate::calendar::window::Window;
use crate::lease::resp::{Refusal, Reply};

/// The largest number up to which the store counts exactly: its numbers are doubles.
pub const MOST: u64 = 1 << 53;

/// The name of an account in the store: two names that differ in any part have different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account<'a> {
    /// The name of the group of proxies that share the account.
    pub domain: &'a str,
    /// The tenant, or a subject of it: `["acme"]`, `["acme", "user", "ann"]`.
    pub subject: &'a [&'a str],
    /// The limit's name.
    pub limit: &'a str,
    /// What is counted: `tokens`, `usd`.
    pub unit: &'a str,
    /// When an operator last reset the limit, in milliseconds since 1970; 0: never. Each reset begins another account.
    pub generation: u64,
    /// The window of the budget.
    pub window: Window,
}

impl Account<'_> {
    /// The key of the hash of a bucket with this name, whether the bucket counts tokens or requests.
    #[must_use]
    pub fn bucket_key(domain: &str, tenant: &str, limit: &str) -> String {
        let mut key = name(domain, [tenant, limit].into_iter());
        key.push_str(":rate");
        key
    }

    /// The key of the hash in which the store keeps which upstreams refuse.
    #[must_use]
    pub fn pressed_key(domain: &str) -> String {
        let mut key = name(domain, std::iter::empty());
        key.push_str(":pressed");
        key
    }

    /// The key of the account's hash. A cluster chooses the node by the part in braces, so that all windows of a limit are on one node.
    #[must_use]
    pub fn key(&self) -> String {
        let parts = self.subject.iter().chain([&self.limit]);
        let mut key = name(self.domain, parts.copied());
        key.push(':');
        push_part(&mut key, self.unit);
        for number in [self.generation, millis(self.window.start)] {
            key.push(':');
            key.push_str(itoa::Buffer::new().format(number));
        }
        key
    }
}

/// The prefix of all keys of a limit.
fn name<'a>(domain: &str, parts: impl Iterator<Item = &'a str>) -> String {
    let mut key = String::from("bursar:{");
    push_part(&mut key, domain);
    for part in parts {
        key.push('/');
        push_part(&mut key, part);
    }
    key.push('}');
    key
}

/// Appends a name to a key, escaped, so that no two lists of names make the same key.
fn push_part(key: &mut String, part: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte) {
            key.push(char::from(byte));
        } else {
            key.push('%');
            for digit in [byte >> 4, byte & 15] {
                key.push(char::from(
                    HEX.get(usize::from(digit)).copied().unwrap_or_default(),
                ));
            }
        }
    }
}

/// The random name of one holder of a part of an account. A proxy that no longer knows what it held draws a new name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(pub u64);

/// What a proxy reports about an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The sender.
    pub holder: Holder,
    /// The number of the line: each line of a holder has a greater number than the one before.
    pub seq: u64,
    /// The most that the holder may have spent and held since the window opened.
    pub granted: u64,
    /// What the holder has spent, and what it holds for requests in flight.
    pub used: u64,
    /// How much more the holder wants to be granted.
    pub want: u64,
    /// The smallest grant with which the holder can admit the request that was refused; 0 if none was refused.
    pub least: u64,
    /// What all proxies may spend together.
    pub budget: u64,
    /// The account's window.
    pub window: Window,
    /// After this many milliseconds of silence, what a holder did not use is free for others; 0: never.
    pub reclaim: u64,
    /// When the account was opened, by the last answer; 0 if that is unknown.
    pub born: u64,
    /// The milliseconds for which nothing of the account is granted after a loss of the store's data.
    pub relearn: u64,
}

impl Line {
    /// The line's numbers in the order of the script's arguments, after the holder.
    pub(super) fn arguments(&self) -> [u64; 11] {
        let end = if self.window.end == Timestamp::MAX {
            0
        } else {
            millis(self.window.end).max(1)
        };
        [
            self.seq,
            self.granted,
            self.used,
            self.want,
            self.least,
            self.budget,
            millis(self.window.start),
            end,
            self.reclaim,
            self.born,
            self.relearn,
        ]
        .map(|number| number.min(MOST))
    }
}

/// What the store did with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The store processed the line.
    Granted,
    /// The store had already processed the line with this number, or a later line. Nothing changed.
    Stale {
        /// The number of the latest line that the store has processed.
        latest: u64,
    },
    /// By the store's clock the window is not open yet. Nothing changed.
    TooEarly,
    /// By the store's clock the window has ended. Nothing changed.
    TooLate,
}

/// The store's answer to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the store did with the line.
    pub status: Status,
    /// How much may be spent in addition to the line's `granted`.
    pub grant: u64,
    /// The sum of all grants.
    pub total: u64,
    /// What can still be granted.
    pub free: u64,
    /// The number of proxies whose lines the store received recently.
    pub holders: u64,
    /// The store's clock, in milliseconds since 1970.
    pub now: u64,
    /// When the account was opened.
    pub born: u64,
    /// The current generation. If it is later than the line's, the answer is about that generation's account, of which the sender has
    /// `grant` and nothing else.
    pub generation: u64,
    /// The budget with which an operator replaced the configured one; 0: none.
    pub set: u64,
    /// What an operator has added to the budget for now.
    pub raise: u64,
}

/// Why a line has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The store refused the line, for this reason and in these words.
    Refused(Refusal, String),
    /// The reply is none that the script returns.
    Strange,
}

impl Answer {
    pub(super) fn read(reply: &Reply<'_>) -> Result<Self, NoAnswer> {
        let fields = match reply {
            Reply::Array(Some(fields)) => fields.as_slice(),
            reply => return Err(no_answer(reply)),
        };
        let numbers: Option<Vec<u64>> = fields.iter().map(natural).collect();
        let Some([status, first, total, free, holders, now, born, rest @ ..]) = numbers.as_deref()
        else {
            return Err(NoAnswer::Strange);
        };
        let &[generation, set, raise] = rest else {
            return Err(NoAnswer::Strange);
        };
        let (status, grant) = match status {
            0 => (Status::Granted, *first),
            1 => (Status::Stale { latest: *first }, 0),
            2 => (Status::TooEarly, 0),
            3 => (Status::TooLate, 0),
            _ => return Err(NoAnswer::Strange),
        };
        Ok(Self {
            status,
            grant,
            total: *total,
            free: *free,
            holders: *holders,
            now: *now,
            born: *born,
            generation,
            set,
            raise,
        })
    }
}

/// Why a reply is no answer.
pub(super) fn no_answer(reply: &Reply<'_>) -> NoAnswer {
    match reply {
        Reply::Error(refusal, text) => {
            NoAnswer::Refused(*refusal, String::from_utf8_lossy(text).into_owned())
        }
        _ => NoAnswer::Strange,
    }
}

pub(super) fn natural(reply: &Reply<'_>) -> Option<u64> {
    match reply {
        Reply::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// Whole milliseconds since 1970.
pub(super) fn millis(time: Timestamp) -> u64 {
    time.as_nanos() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const ACCOUNT: Account<'_> = Account {
        domain: "llm",
        subject: &["acme", "user", "ann@x.org"],
        limit: "user-day",
        unit: "usd",
        generation: 2,
        window: Window {
            start: Timestamp::from_secs(1_000),
            end: Timestamp::from_secs(2_000),
        },
    };

    #[test]
    fn a_key_says_whose_it_is() {
        assert_eq!(
            ACCOUNT.key(),
            "bursar:{llm/acme/user/ann@x.org/user-day}:usd:2:1000000"
        );
    }

    // Clients choose tenants' ids: no id may lead to another tenant's account.
    #[test]
    fn names_cannot_be_made_up_to_meet_in_one_key() {
        let of = |domain, subject| {
            Account {
                domain,
                subject,
                ..ACCOUNT
            }
            .key()
        };
        let keys = [
            of("llm", &["a/b"]),
            of("llm", &["a", "b"]),
            of("llm/a", &["b"]),
            of("llm", &["a%2Fb"]),
            of("llm", &["a}", "b"]),
            of("llm", &["a:b"]),
            of("llm", &["a b"]),
            of("llm", &["aé"]),
            of("llm", &[]),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{key}");
            assert!(key.is_ascii() && !key.contains(' '), "{key}");
            assert_eq!(
                (key.matches('{').count(), key.matches('}').count()),
                (1, 1),
                "{key}"
            );
        }
    }

    fn read(reply: &[Reply<'_>]) -> Result<Answer, NoAnswer> {
        Answer::read(&Reply::Array(Some(reply.to_vec())))
    }

    #[test]
    fn an_answer_has_ten_numbers_none_below_zero() {
        let whole = [0, 5, 6, 7, 8, 9, 10, 11, 12, 13].map(Reply::Integer);
        let expected = Answer {
            status: Status::Granted,
            grant: 5,
            total: 6,
            free: 7,
            holders: 8,
            now: 9,
            born: 10,
            generation: 11,
            set: 12,
            raise: 13,
        };
        assert_eq!(read(&whole), Ok(expected));
        for short in 0..whole.len() {
            assert_eq!(read(&whole[..short]), Err(NoAnswer::Strange), "{short}");
        }
        assert_eq!(
            read(&[0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14].map(Reply::Integer)),
            Err(NoAnswer::Strange)
        );
        assert_eq!(
            read(&[0, -5, 6, 7, 8, 9, 10, 11, 12, 13].map(Reply::Integer)),
            Err(NoAnswer::Strange)
        );
        assert_eq!(
            read(&[4, 5, 6, 7, 8, 9, 10, 11, 12, 13].map(Reply::Integer)),
            Err(NoAnswer::Strange)
        );
        assert_eq!(Answer::read(&Reply::Simple(b"OK")), Err(NoAnswer::Strange));
        let stale = read(&[1, 5, 6, 7, 8, 9, 10, 11, 12, 13].map(Reply::Integer)).unwrap();
        assert_eq!(
            (stale.status, stale.grant),
            (Status::Stale { latest: 5 }, 0)
        );
        let refused = Answer::read(&Reply::Error(Refusal::OutOfMemory, b"OOM no"));
        assert_eq!(
            refused,
            Err(NoAnswer::Refused(Refusal::OutOfMemory, "OOM no".to_owned()))
        );
    }
}
