//! Lines about several accounts in one call to the store: one connection, one request body, one response body.

use crate::lease::line::{Answer, Holder, Line, NoAnswer};
use crate::lease::pressed::{self, Pressed};
use crate::lease::rate::RateLine;
use crate::lease::resp::{Malformed, Refusal, Reply, first, push_command, replies};

/// The script that the store runs for a line about a budget.
pub const SCRIPT: &str = text(&BUDGETS);

/// The SHA-1 of [`SCRIPT`], by which the store knows it.
pub const SCRIPT_SHA: &str = "4e1b23cdc75a57e3e2a74ce52e88bfc1b7494fe6";

/// The script that the store runs for a line about a bucket.
pub const RATES: &str = text(&BUCKETS);

/// The SHA-1 of [`RATES`].
pub const RATES_SHA: &str = "5b9bad38eb03bc34157e6e94e552aa92d01efb47";

/// The script that the store runs for what is reported about upstreams.
pub const PRESSED: &str = text(&UPSTREAMS);

/// The SHA-1 of [`PRESSED`].
pub const PRESSED_SHA: &str = "1b559081f461c2df5e2490a4fedcdb6ca85d924b";

const BUDGETS: [u8; bare::<0>(include_bytes!("script.lua")).0] =
    bare(include_bytes!("script.lua")).1;

const BUCKETS: [u8; bare::<0>(include_bytes!("rates.lua")).0] = bare(include_bytes!("rates.lua")).1;

const UPSTREAMS: [u8; bare::<0>(include_bytes!("pressed.lua")).0] =
    bare(include_bytes!("pressed.lua")).1;

/// Lua code without comments (each of which is on a line of its own) and without indentation: its length, and its first `ROOM` bytes.
/// Comments and indentation make up a third of the scripts, and would only make the module larger.
const fn bare<const ROOM: usize>(mut code: &[u8]) -> (usize, [u8; ROOM]) {
    let (mut length, mut bare) = (0_usize, [0; ROOM]);
    let (mut begins, mut skips) = (true, false);
    while let [byte, rest @ ..] = code {
        if begins && *byte != b' ' {
            skips = *byte == b'-';
            begins = false;
        }
        if !begins && !skips {
            if let Some((_, to)) = bare.split_at_mut_checked(length)
                && let [to, ..] = to
            {
                *to = *byte;
            }
            length = length.saturating_add(1);
        }
        begins |= *byte == b'\n';
        code = rest;
    }
    (length, bare)
}

const fn text(bytes: &'static [u8]) -> &'static str {
    match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => "",
    }
}

/// The most lines in one call.
pub const LINES: usize = 256;

/// The login, where the store requires one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login<'a> {
    /// The store's user.
    pub user: &'a str,
    /// The user's password.
    pub password: &'a str,
}

/// A line about a budget or about a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyLine {
    /// About a budget.
    Budget(Line),
    /// About a bucket.
    Bucket(RateLine),
}

/// What is reported about upstreams in a call, and the key of the hash in which the store keeps that.
pub type News<'a> = (&'a str, &'a [Pressed]);

/// The answers to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// The answer to each line.
    pub lines: Vec<Result<Answer, NoAnswer>>,
    /// The answer to what the call reported about upstreams, if it reported that.
    pub pressed: Option<Result<Vec<Pressed>, NoAnswer>>,
}

/// A call under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    logs_in: bool,
    lines: usize,
    has_pressed: bool,
}

/// Why a call has no answers at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// There was no connection, or it ended before an answer began.
    NoConnection,
    /// The body contains something other than the expected answers, or lacks some of them.
    Malformed(Malformed),
    /// The store refused the whole call, for this reason and in these words.
    Refused(Refusal, String),
}

impl Call {
    /// The call that [`write_any`](Self::write_any) returns for this number of lines.
    #[must_use]
    pub fn of(logs_in: bool, lines: usize, has_pressed: bool) -> Self {
        Self {
            logs_in,
            lines,
            has_pressed,
        }
    }

    /// As [`Call::write_any`], for lines about budgets alone.
    #[must_use]
    pub fn write<'a>(
        login: Option<Login<'_>>,
        lines: impl IntoIterator<Item = (&'a str, Line)>,
        script: bool,
    ) -> (Self, Vec<u8>) {
        let lines = lines.into_iter();
        let lines = lines.map(|(key, line)| (key, AnyLine::Budget(line)));
        Self::write_any(login, lines, None, script)
    }

    /// Writes a call: the login, the lines, what is new about upstreams, and `QUIT`, so that the store closes the connection once it has
    /// answered. With `script`, the first line of each kind contains its script, which the store then caches for the other lines.
    #[must_use]
    pub fn write_any<'a>(
        login: Option<Login<'_>>,
        lines: impl IntoIterator<Item = (&'a str, AnyLine)>,
        news: Option<News<'_>>,
        script: bool,
    ) -> (Self, Vec<u8>) {
        let mut body = Vec::new();
        if let Some(Login { user, password }) = login {
            push_command(&mut body, &[b"AUTH", user.as_bytes(), password.as_bytes()]);
        }
        let mut count = 0_usize;
        let mut brings = [script; 2];
        for (key, line) in lines.into_iter().take(LINES) {
            push_line(&mut body, key, &line, &mut brings);
            count = count.saturating_add(1);
        }
        if let Some((key, news)) = news {
            let code = code(&mut { script }, PRESSED, PRESSED_SHA);
            pressed::push(&mut body, code, key, news);
        }
        push_command(&mut body, &[b"QUIT"]);
        let call = Self {
            logs_in: login.is_some(),
            lines: count,
            has_pressed: news.is_some(),
        };
        (call, body)
    }

    /// Reads the answers, one for each line, from a response. `status`: the response's status, if it had headers.
    ///
    /// # Errors
    /// If the response cannot be read as answers. Then it is unknown whether the store processed the lines.
    pub fn read(self, status: Option<&[u8]>, body: &[u8]) -> Result<Answers, Failed> {
        // If the connection is refused, Envoy answers 503, with a text of its own as the body.
        if status != Some(b"200") {
            return Err(Failed::NoConnection);
        }
        let before = usize::from(self.logs_in);
        let after = usize::from(self.has_pressed).saturating_add(1);
        let count = self.lines.saturating_add(before).saturating_add(after);
        let read = replies(body, count)
            .map_err(|malformed| refused(body).unwrap_or(Failed::Malformed(malformed)))?;
        let Some((Reply::Simple(b"OK"), read)) = read.split_last() else {
            return Err(Failed::Malformed(Malformed::NoReply));
        };
        let (login, lines) = read.split_at_checked(before).unwrap_or_default();
        let (lines, pressed) = lines.split_at_checked(self.lines).unwrap_or_default();
        match login {
            [] | [Reply::Simple(b"OK")] => Ok(Answers {
                lines: lines.iter().map(Answer::read).collect(),
                pressed: pressed.first().map(pressed::read),
            }),
            _ => Err(refused(body).unwrap_or(Failed::Malformed(Malformed::NoReply))),
        }
    }
}

/// The error with which the body begins, if the store refused the whole connection; it may then close the connection at once. The cause is
/// a wrong or missing login (without one, the store refuses commands with as many words as a line has), or too many connections.
fn refused(body: &[u8]) -> Option<Failed> {
    match first(body) {
        Ok(Reply::Error(refusal, text)) => {
            let text = String::from_utf8_lossy(text).into_owned();
            Some(Failed::Refused(refusal, text))
        }
        _ => None,
    }
}

/// Appends a line as a command. `brings`: for each kind of line, whether its next line has to contain the script.
fn push_line(body: &mut Vec<u8>, key: &str, line: &AnyLine, brings: &mut [bool; 2]) {
    let [budgets, buckets] = brings;
    match line {
        AnyLine::Budget(line) => {
            let code = code(budgets, SCRIPT, SCRIPT_SHA);
            push_words(body, code, key, line.holder, &line.arguments());
        }
        AnyLine::Bucket(line) => {
            let code = code(buckets, RATES, RATES_SHA);
            push_words(body, code, key, line.holder, &line.arguments());
        }
    }
}

fn code(brings: &mut bool, script: &'static str, sha: &'static str) -> [&'static str; 2] {
    match std::mem::take(brings) {
        true => ["EVAL", script],
        false => ["EVALSHA", sha],
    }
}

fn push_words(
    body: &mut Vec<u8>,
    [verb, code]: [&str; 2],
    key: &str,
    Holder(holder): Holder,
    numbers: &[u64],
) {
    let holder = format!("{holder:016x}");
    let mut words = vec![verb, code, "1", key, holder.as_str()];
    let mut digits: Vec<_> = numbers
        .iter()
        .map(|number| (itoa::Buffer::new(), *number))
        .collect();
    words.extend(
        digits
            .iter_mut()
            .map(|(buffer, number)| buffer.format(*number)),
    );
    let words: Vec<_> = words.into_iter().map(str::as_bytes).collect();
    push_command(body, &words);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::window::Window;
    use crate::lease::line::{Holder, Status};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const LOGIN: Login<'_> = Login {
        user: "bursar",
        password: "secret",
    };

    fn line() -> Line {
        Line {
            holder: Holder(255),
            seq: 1,
            granted: 2,
            used: 3,
            want: 4,
            least: 5,
            budget: u64::MAX,
            window: Window::default(),
            reclaim: 6,
            born: 7,
            relearn: 8,
        }
    }

    fn call(login: Option<Login<'_>>, lines: usize) -> (Call, Vec<u8>) {
        Call::write(login, vec![("bursar:{k}", line()); lines], true)
    }

    #[test]
    fn the_script_goes_with_the_first_line_only() {
        let (_, body) = call(Some(LOGIN), 3);
        let body = String::from_utf8(body).unwrap();
        assert!(body.starts_with(
            "*3\r\n$4\r\nAUTH\r\n$6\r\nbursar\r\n$6\r\nsecret\r\n*16\r\n$4\r\nEVAL\r\n"
        ));
        assert!(body.ends_with("*1\r\n$4\r\nQUIT\r\n"));
        assert_eq!(
            (
                body.matches(SCRIPT).count(),
                body.matches("EVALSHA").count()
            ),
            (1, 2)
        );
        assert!(body.contains("$16\r\n00000000000000ff\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n$1\r\n5\r\n$16\r\n9007199254740992\r\n"));
    }

    const ANSWER: &str = "*10\r\n:0\r\n:5\r\n:6\r\n:7\r\n:8\r\n:9\r\n:10\r\n:0\r\n:0\r\n:0\r\n";

    #[test]
    fn each_line_has_its_own_answer() {
        let body = format!("+OK\r\n{ANSWER}-NOSCRIPT x\r\n+OK\r\n");
        let answers = call(Some(LOGIN), 2)
            .0
            .read(Some(b"200"), body.as_bytes())
            .unwrap()
            .lines;
        assert_eq!(answers[0].as_ref().unwrap().status, Status::Granted);
        let refused = NoAnswer::Refused(Refusal::NoScript, "NOSCRIPT x".to_owned());
        assert_eq!(answers[1], Err(refused));
    }

    // A proxy that has no connection says so in a body of its own, or says nothing at all.
    #[test]
    fn a_call_that_failed_has_no_answers() {
        let call = call(None, 1).0;
        let whole = format!("{ANSWER}+OK\r\n");
        for status in [None, Some(&b"503"[..]), Some(b"200 "), Some(b"")] {
            assert_eq!(
                call.read(status, whole.as_bytes()),
                Err(Failed::NoConnection)
            );
        }
        assert!(call.read(Some(b"200"), whole.as_bytes()).is_ok());
        for end in 0..whole.len() {
            let cut = call.read(Some(b"200"), &whole.as_bytes()[..end]);
            assert_eq!(cut, Err(Failed::Malformed(Malformed::Cut)), "{end}");
        }
        let twice = format!("{whole}{whole}");
        assert_eq!(
            call.read(Some(b"200"), twice.as_bytes()),
            Err(Failed::Malformed(Malformed::Extra))
        );
        let no_end = format!("{ANSWER}{ANSWER}");
        assert_eq!(
            call.read(Some(b"200"), no_end.as_bytes()),
            Err(Failed::Malformed(Malformed::NoReply))
        );
    }

    #[test]
    fn a_store_that_wants_no_more_says_why_first() {
        let refused = |login, body: &str| call(login, 2).0.read(Some(b"200"), body.as_bytes());
        let wrong = "WRONGPASS invalid username-password pair or user is disabled.";
        let expected = Err(Failed::Refused(Refusal::NotAllowed, wrong.to_owned()));
        assert_eq!(refused(Some(LOGIN), &format!("-{wrong}\r\n")), expected);
        assert_eq!(
            refused(Some(LOGIN), &format!("-{wrong}\r\n-ERR Protocol error\r\n")),
            expected
        );
        assert_eq!(
            refused(
                Some(LOGIN),
                &format!("-{wrong}\r\n-NOAUTH x\r\n-NOAUTH x\r\n+OK\r\n")
            ),
            expected
        );
        let crowded = "ERR max number of clients reached";
        let expected = Err(Failed::Refused(Refusal::Other, crowded.to_owned()));
        assert_eq!(refused(None, &format!("-{crowded}\r\n")), expected);
    }
}
