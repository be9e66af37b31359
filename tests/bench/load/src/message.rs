//! HTTP/1.1 as it comes, at the least cost: the head is kept, of the body only how long it is and its last bytes.

/// So much of a body's end is kept: enough for its last keys.
const TAIL: usize = 256;

enum At {
    Head,
    /// So many bytes of the body are to come.
    Body(usize),
    ChunkSize(usize),
    Chunk(usize),
    ChunkEnd,
    /// Behind the last chunk; whether the line is empty so far.
    Trailers(bool),
    Done,
}

/// A message as far as it has been read.
pub struct Message {
    at: At,
    pub head: Vec<u8>,
    tail: Vec<u8>,
    /// Bytes of the body so far.
    pub size: usize,
}

impl Message {
    pub fn new() -> Self {
        Self {
            at: At::Head,
            head: Vec::with_capacity(1024),
            tail: Vec::with_capacity(2 * TAIL),
            size: 0,
        }
    }

    pub fn clear(&mut self) {
        self.at = At::Head;
        self.head.clear();
        self.tail.clear();
        self.size = 0;
    }

    pub fn is_done(&self) -> bool {
        matches!(self.at, At::Done)
    }

    pub fn has_begun(&self) -> bool {
        !self.head.is_empty()
    }

    /// Takes what belongs to this message; what is left is behind its end.
    pub fn read<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while !bytes.is_empty() && !self.is_done() {
            bytes = self.step(bytes);
        }
        bytes
    }

    fn step<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        match self.at {
            At::Head => self.read_head(bytes),
            At::Body(left) => {
                let taken = self.take(bytes, left);
                self.at = if left == taken {
                    At::Done
                } else {
                    At::Body(left - taken)
                };
                &bytes[taken..]
            }
            At::ChunkSize(size) => {
                self.at = match bytes[0] {
                    b'\n' if size == 0 => At::Trailers(true),
                    b'\n' => At::Chunk(size),
                    byte => At::ChunkSize(
                        char::from(byte)
                            .to_digit(16)
                            .map_or(size, |digit| 16 * size + digit as usize),
                    ),
                };
                &bytes[1..]
            }
            At::Chunk(left) => {
                let taken = self.take(bytes, left);
                self.at = if left == taken {
                    At::ChunkEnd
                } else {
                    At::Chunk(left - taken)
                };
                &bytes[taken..]
            }
            At::ChunkEnd => {
                if bytes[0] == b'\n' {
                    self.at = At::ChunkSize(0);
                }
                &bytes[1..]
            }
            At::Trailers(is_empty) => {
                self.at = match bytes[0] {
                    b'\n' if is_empty => At::Done,
                    b'\n' => At::Trailers(true),
                    b'\r' => At::Trailers(is_empty),
                    _ => At::Trailers(false),
                };
                &bytes[1..]
            }
            At::Done => bytes,
        }
    }

    fn read_head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let Some(end) = find(&self.head[before.saturating_sub(3)..], b"\r\n\r\n") else {
            return &[];
        };
        let end = before.saturating_sub(3) + end + 4;
        self.head.truncate(end);
        self.at = match self
            .header("content-length")
            .and_then(|length| length.parse().ok())
        {
            Some(0) => At::Done,
            Some(length) => At::Body(length),
            None if self.header("transfer-encoding").is_some() => At::ChunkSize(0),
            None => At::Done,
        };
        &bytes[end - before..]
    }

    fn take(&mut self, bytes: &[u8], most: usize) -> usize {
        let taken = &bytes[..most.min(bytes.len())];
        self.size += taken.len();
        let last = &taken[taken.len().saturating_sub(TAIL)..];
        let kept = (self.tail.len() + last.len()).saturating_sub(TAIL);
        self.tail.drain(..kept.min(self.tail.len()));
        self.tail.extend_from_slice(last);
        taken.len()
    }

    /// The value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(&self.head).ok()?;
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// An answer's status.
    pub fn status(&self) -> u16 {
        let word = self
            .head
            .get(9..12)
            .and_then(|word| std::str::from_utf8(word).ok());
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// Whether these bytes stand near the body's end.
    pub fn ends_with_any(&self, wanted: &[u8]) -> bool {
        find(&self.tail, wanted).is_some()
    }
}

pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_in_pieces(text: &[u8], size: usize) -> Message {
        let mut message = Message::new();
        for piece in text.chunks(size) {
            assert!(message.read(piece).is_empty());
        }
        message
    }

    #[test]
    fn a_body_with_a_length_is_read_at_every_split() {
        let text = b"POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 11\r\n\r\nhello world";
        for size in 1..text.len() {
            let message = read_in_pieces(text, size);
            assert!(message.is_done() && message.size == 11 && message.ends_with_any(b"world"));
        }
    }

    #[test]
    fn chunks_are_read_at_every_split() {
        let text = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1A\r\n worldworldworldworldworld\r\n0\r\n\r\n";
        for size in 1..text.len() {
            let message = read_in_pieces(text, size);
            assert!(message.is_done() && message.size == 31 && message.status() == 200);
            assert!(message.ends_with_any(b"hello world"));
        }
    }

    #[test]
    fn what_follows_a_message_is_left() {
        let mut message = Message::new();
        assert_eq!(message.read(b"GET / HTTP/1.1\r\n\r\nGET"), b"GET");
        assert!(message.is_done());
    }
}
