//! A connection from Envoy, to be answered when all of a request has been read.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

use crate::answers::Answers;
use crate::message::Message;

/// What stands near the end of a body whose model was exchanged.
const REWRITTEN: [&[u8]; 2] = [b"\"model\":\"gpt-4o-mini\"", b"\"model\": \"gpt-4o-mini\""];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Burst,
    Paced,
}

pub struct Upstream {
    pub stream: TcpStream,
    pub request: Message,
    kind: Kind,
    /// The part of the answer that is being sent, and bytes of it that are out; `None` between requests.
    part: Option<(usize, usize)>,
    /// Of a paced answer: who reads it.
    pub client: usize,
}

/// What a read came to.
pub enum Event {
    Nothing,
    /// All of a request has been read: it is being answered.
    Asked,
    Gone,
}

impl Upstream {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            request: Message::new(),
            kind: Kind::Json,
            part: None,
            client: 0,
        }
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> Event {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Event::Gone,
                Ok(count) => {
                    self.request.read(&buffer[..count]);
                    if self.request.is_done() {
                        return Event::Asked;
                    }
                    if count < buffer.len() {
                        return Event::Nothing;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Event::Nothing,
                Err(_) => return Event::Gone,
            }
        }
    }

    pub fn is_rewritten(&self) -> bool {
        REWRITTEN
            .iter()
            .any(|wanted| self.request.ends_with_any(wanted))
    }

    /// Begins the answer to the request that has been read.
    pub fn answer(&mut self, answers: &Answers) -> io::Result<()> {
        self.kind = match self.request.header("x-bench") {
            Some("burst") => Kind::Burst,
            Some("paced") => Kind::Paced,
            _ => Kind::Json,
        };
        self.client = self
            .request
            .header("x-client")
            .and_then(|index| index.parse().ok())
            .unwrap_or(0);
        self.request.clear();
        self.part = Some((0, 0));
        self.write(answers)
    }

    /// Whether an event waits until the client has read the one before.
    pub fn is_pacing(&self) -> bool {
        self.kind == Kind::Paced && self.part.is_some()
    }

    /// Sends the next event.
    pub fn go_on(&mut self, answers: &Answers) -> io::Result<()> {
        if let (Kind::Paced, Some((part, sent))) = (self.kind, self.part)
            && answers
                .paced
                .get(part)
                .is_some_and(|bytes| sent == bytes.len())
        {
            self.part = (part + 1 < answers.paced.len()).then_some((part + 1, 0));
        }
        self.write(answers)
    }

    pub fn write(&mut self, answers: &Answers) -> io::Result<()> {
        let Some((part, mut sent)) = self.part else {
            return Ok(());
        };
        let (bytes, is_last) = match self.kind {
            Kind::Json => (&answers.json, true),
            Kind::Burst => (&answers.burst, true),
            Kind::Paced => (&answers.paced[part], part + 1 == answers.paced.len()),
        };
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.part = if is_last && sent == bytes.len() {
            None
        } else {
            Some((part, sent))
        };
        Ok(())
    }
}
