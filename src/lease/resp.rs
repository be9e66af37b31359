//! RESP2, the protocol of Redis and Valkey: writes commands, and reads strictly the replies of one whole connection.
//!
//! A body consists of all bytes that arrived until the store closed the connection. It may be cut anywhere, or may be Envoy's own text
//! about why there was no connection: both are errors, and are never read as a part of an answer.

use crate::base::text::push_number;

/// How deep arrays may be nested: the replies of our scripts have one level.
const DEPTH: u32 = 4;

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `+OK`
    Simple(&'a [u8]),
    /// `-ERR …`
    Error(Refusal, &'a [u8]),
    /// `:1`
    Integer(i64),
    /// `$2`, `None` where there is no value.
    Bulk(Option<&'a [u8]>),
    /// `*2`, `None` where there is no value.
    Array(Option<Vec<Self>>),
}

/// Why the store refused a command, as far as the reason matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The store does not have the script (`-NOSCRIPT`): it was restarted, or never had the script.
    NoScript,
    /// The store is a replica, or cannot write to its disk, or has too few replicas (`-READONLY`, `-MISCONF`, `-NOREPLICAS`).
    ReadOnly,
    /// The store has no memory left (`-OOM`).
    OutOfMemory,
    /// User or password are wrong or missing, or the user may not do this (`-NOAUTH`, `-WRONGPASS`, `-NOPERM`).
    NotAllowed,
    /// The store cannot answer at present: it loads its data, say, or runs another client's script (`-LOADING`, `-BUSY`, `-MASTERDOWN`,
    /// `-TRYAGAIN`).
    NotNow,
    /// Another node of a cluster has the key (`-MOVED`, `-ASK`, `-CROSSSLOT`, `-CLUSTERDOWN`).
    Elsewhere,
    /// Anything else.
    Other,
}

impl Refusal {
    fn of(text: &[u8]) -> Self {
        // A store that waits for a login refuses commands with many words, with an error that has no code.
        if text.starts_with(b"ERR Protocol error: unauthenticated") {
            return Self::NotAllowed;
        }
        let word = text.split(|byte| *byte == b' ').next();
        match word.unwrap_or_default() {
            b"NOSCRIPT" => Self::NoScript,
            b"READONLY" | b"MISCONF" | b"NOREPLICAS" => Self::ReadOnly,
            b"OOM" => Self::OutOfMemory,
            b"NOAUTH" | b"WRONGPASS" | b"NOPERM" => Self::NotAllowed,
            b"LOADING" | b"BUSY" | b"MASTERDOWN" | b"TRYAGAIN" => Self::NotNow,
            b"MOVED" | b"ASK" | b"CROSSSLOT" | b"CLUSTERDOWN" => Self::Elsewhere,
            _ => Self::Other,
        }
    }
}

/// A body that does not consist of the expected replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The body ends in the middle of a reply, or before the last one.
    Cut,
    /// The body has bytes that no reply can have.
    NoReply,
    /// The body has more bytes than the expected replies.
    Extra,
}

/// Writes a command.
pub fn push_command(to: &mut Vec<u8>, words: &[&[u8]]) {
    push_count(to, b'*', words.len());
    for word in words {
        push_count(to, b'$', word.len());
        to.extend_from_slice(word);
        to.extend_from_slice(b"\r\n");
    }
}

fn push_count(to: &mut Vec<u8>, mark: u8, count: usize) {
    to.push(mark);
    push_number(to, u64::try_from(count).unwrap_or(u64::MAX));
    to.extend_from_slice(b"\r\n");
}

/// Reads a body that consists of exactly `count` replies.
///
/// # Errors
/// If the body is anything else. Then none of its replies may be used.
pub fn replies(body: &[u8], count: usize) -> Result<Vec<Reply<'_>>, Malformed> {
    let mut reader = Reader { rest: body };
    let mut replies = Vec::new();
    for _ in 0..count {
        replies.push(reader.reply(DEPTH)?);
    }
    if reader.rest.is_empty() {
        Ok(replies)
    } else {
        Err(Malformed::Extra)
    }
}

/// The first reply, whatever comes after it.
///
/// # Errors
/// If the body does not begin with a reply.
pub fn first(body: &[u8]) -> Result<Reply<'_>, Malformed> {
    Reader { rest: body }.reply(DEPTH)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn reply(&mut self, depth: u32) -> Result<Reply<'a>, Malformed> {
        let (mark, rest) = self.rest.split_first().ok_or(Malformed::Cut)?;
        // Checked before the line's end is searched for: a text of Envoy's own may have none.
        if !b"+-:$*".contains(mark) {
            return Err(Malformed::NoReply);
        }
        self.rest = rest;
        let line = self.line()?;
        Ok(match mark {
            b'+' => Reply::Simple(line),
            b'-' => Reply::Error(Refusal::of(line), line),
            b':' => Reply::Integer(integer(line)?),
            b'$' => Reply::Bulk(match length(line)? {
                Some(length) => Some(self.bulk(length)?),
                None => None,
            }),
            _ => Reply::Array(match length(line)? {
                Some(length) => Some(self.array(length, depth)?),
                None => None,
            }),
        })
    }

    fn line(&mut self) -> Result<&'a [u8], Malformed> {
        let Some(end) = self.rest.iter().position(|byte| *byte == b'\r') else {
            // A `\n` alone does not end a line.
            return Err(if self.rest.contains(&b'\n') {
                Malformed::NoReply
            } else {
                Malformed::Cut
            });
        };
        let (line, rest) = self.rest.split_at_checked(end).ok_or(Malformed::Cut)?;
        self.rest = rest;
        self.crlf()?;
        if line.contains(&b'\n') {
            return Err(Malformed::NoReply);
        }
        Ok(line)
    }

    fn bulk(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Cut)?;
        self.rest = rest;
        self.crlf()?;
        Ok(bytes)
    }

    fn crlf(&mut self) -> Result<(), Malformed> {
        match self.rest {
            [b'\r', b'\n', rest @ ..] => {
                self.rest = rest;
                Ok(())
            }
            [] | [b'\r'] => Err(Malformed::Cut),
            _ => Err(Malformed::NoReply),
        }
    }

    /// The memory that an array takes is bounded by the body: an element has at least three bytes.
    fn array(&mut self, length: usize, depth: u32) -> Result<Vec<Reply<'a>>, Malformed> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Malformed::NoReply);
        };
        let mut elements = Vec::new();
        for _ in 0..length {
            elements.push(self.reply(depth)?);
        }
        Ok(elements)
    }
}

/// The number on a line. Each number has only one valid spelling.
fn integer(line: &[u8]) -> Result<i64, Malformed> {
    let digits = line.strip_prefix(b"-").unwrap_or(line);
    let plain = match digits {
        [b'0'] => line.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let text = std::str::from_utf8(line).ok().filter(|_| plain);
    text.and_then(|text| text.parse().ok())
        .ok_or(Malformed::NoReply)
}

/// A length; `None` for -1, which means that there is no value.
fn length(line: &[u8]) -> Result<Option<usize>, Malformed> {
    match integer(line)? {
        -1 => Ok(None),
        // A length that does not fit into `usize` exceeds the body, too.
        0.. => Ok(Some(usize::try_from(integer(line)?).unwrap_or(usize::MAX))),
        _ => Err(Malformed::NoReply),
    }
}

#[cfg(test)]
mod tests;
