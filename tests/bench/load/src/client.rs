//! A connection to Envoy with one request at a time.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use mio::net::TcpStream;

use crate::message::{Message, find};

/// What a request's tenant is called, so that its number can be exchanged in its place.
const TENANT: &[u8] = b"x-tenant-id: tenant-";
const DIGITS: usize = 7;

/// What is sent.
pub struct Request {
    pub head: Vec<u8>,
    pub body: Rc<[u8]>,
}

pub struct Client {
    pub stream: TcpStream,
    head: Vec<u8>,
    body: Rc<[u8]>,
    /// Bytes of both that are out.
    sent: usize,
    pub is_busy: bool,
    pub answer: Message,
    /// When its request was due.
    pub due: Instant,
    pub first: Option<Instant>,
}

pub enum Progress {
    Nothing,
    /// More of the answer's body has come.
    Some,
    Done,
    /// The connection is gone.
    Gone,
}

impl Client {
    pub fn connect(address: SocketAddr, request: &Request, index: usize) -> io::Result<Self> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut head = request.head.clone();
        head.extend(
            format!(
                "x-client: {index}\r\ncontent-length: {}\r\n\r\n",
                request.body.len()
            )
            .bytes(),
        );
        Ok(Self {
            stream: TcpStream::from_std(stream),
            head,
            body: Rc::clone(&request.body),
            sent: 0,
            is_busy: false,
            answer: Message::new(),
            due: Instant::now(),
            first: None,
        })
    }

    /// Has the next request be of this tenant.
    pub fn name_tenant(&mut self, number: usize) {
        if let Some(at) = find(&self.head, TENANT) {
            let digits = format!("{number:0DIGITS$}");
            self.head[at + TENANT.len()..][..DIGITS].copy_from_slice(digits.as_bytes());
        }
    }

    pub fn begin(&mut self, due: Instant) -> io::Result<()> {
        self.answer.clear();
        self.sent = 0;
        self.is_busy = true;
        self.due = due;
        self.first = None;
        self.write()
    }

    pub fn write(&mut self) -> io::Result<()> {
        let total = self.head.len() + self.body.len();
        while self.is_busy && self.sent < total {
            let head = &self.head[self.sent.min(self.head.len())..];
            let body = &self.body[self.sent.saturating_sub(self.head.len())..];
            match self
                .stream
                .write_vectored(&[IoSlice::new(head), IoSlice::new(body)])
            {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> Progress {
        let mut progress = Progress::Nothing;
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Progress::Gone,
                Ok(count) => {
                    let before = self.answer.size;
                    self.answer.read(&buffer[..count]);
                    if self.answer.size > before {
                        self.first.get_or_insert_with(Instant::now);
                        progress = Progress::Some;
                    }
                    if self.answer.is_done() {
                        return Progress::Done;
                    }
                    // A read that does not fill the buffer has emptied the socket.
                    if count < buffer.len() {
                        return progress;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return progress,
                Err(_) => return Progress::Gone,
            }
        }
    }
}
