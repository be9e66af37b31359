//! The loop over all connections, and a run.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use crate::answers::Answers;
use crate::client::{Client, Progress, Request};
use crate::tally::Tally;
use crate::upstream::{Event, Upstream};

const LISTENER: Token = Token(usize::MAX);
/// An upstream connection's token is its index and this.
const UPSTREAM: usize = 1 << 20;
const BUFFER: usize = 1 << 20;
/// A filter that holds an answer back never lets the client read the event before: then the next one leaves after so long.
const PATIENCE: Duration = Duration::from_millis(1);
/// A run ends when nothing happens for so long.
const STALLED: Duration = Duration::from_secs(10);
/// A run ends when so many requests of it have failed and none has not.
const HOPELESS: usize = 40;

/// Whose requests a run is of.
#[derive(Clone, Copy)]
pub struct Tenants {
    /// So many ids in turn; 0: the one that the head names.
    pub count: usize,
    /// Where the turn begins.
    pub first: usize,
}

impl Tenants {
    fn number(self, sent: usize) -> Option<usize> {
        (self.first + sent).checked_rem(self.count)
    }
}

pub struct Machine {
    poll: Poll,
    listener: TcpListener,
    answers: Answers,
    upstreams: Vec<Option<Upstream>>,
    clients: Vec<Client>,
    address: SocketAddr,
    request: Request,
    buffer: Vec<u8>,
    tally: Tally,
    /// Which upstream connection streams to a client.
    streams: Vec<Option<usize>>,
}

impl Machine {
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut listener = TcpListener::bind(address)?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            answers: Answers::new(),
            upstreams: Vec::new(),
            clients: Vec::new(),
            address,
            request: Request {
                head: Vec::new(),
                body: Rc::new([]),
            },
            buffer: vec![0; BUFFER],
            tally: Tally::default(),
            streams: Vec::new(),
        })
    }

    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    pub fn open(
        &mut self,
        port: u16,
        connections: usize,
        head: &[u8],
        body: &[u8],
    ) -> io::Result<()> {
        self.close();
        self.address.set_port(port);
        self.request = Request {
            head: head.to_vec(),
            body: body.into(),
        };
        for index in 0..connections {
            let client = self.connect(index)?;
            self.clients.push(client);
        }
        self.streams = vec![None; connections];
        Ok(())
    }

    fn connect(&self, index: usize) -> io::Result<Client> {
        let mut client = Client::connect(self.address, &self.request, index)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut client.stream, Token(index), interest)?;
        Ok(client)
    }

    /// Connections of Envoy's pool stay until Envoy ends them.
    pub fn close(&mut self) {
        self.clients.clear();
    }

    /// Sends `count` requests, one `every` so often or as soon as a connection is free.
    pub fn run(
        &mut self,
        count: usize,
        every: Option<Duration>,
        tenants: Tenants,
    ) -> io::Result<Tally> {
        self.tally = Tally::default();
        let mut events = Events::with_capacity(1024);
        let started = Instant::now();
        let (mut sent, mut moved) = (0, started);
        loop {
            self.send_what_is_due(&mut sent, count, started, every, tenants)?;
            if self.answered() == count || self.is_hopeless() || moved.elapsed() > STALLED {
                break;
            }
            // A rate needs a finer clock than a poll has: then this core is looked at without a pause.
            let timeout = if every.is_some() {
                Duration::ZERO
            } else {
                PATIENCE
            };
            self.poll.poll(&mut events, Some(timeout))?;
            for event in &events {
                moved = Instant::now();
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(index) if index >= UPSTREAM => self.serve(index - UPSTREAM),
                    Token(index) => self.listen(index, event.is_read_closed())?,
                }
            }
            if events.is_empty() {
                self.lose_patience();
            }
        }
        self.tally.wall = started.elapsed();
        self.give_up(sent - self.answered())?;
        Ok(std::mem::take(&mut self.tally))
    }

    /// What is still unanswered was cut, unless nothing else was to be expected.
    fn give_up(&mut self, unanswered: usize) -> io::Result<()> {
        if unanswered > 0 && !self.is_hopeless() {
            *self.tally.statuses.entry(0).or_default() += unanswered;
        }
        for index in 0..self.clients.len() {
            if self.clients[index].is_busy {
                self.clients[index] = self.connect(index)?;
                self.streams[index] = None;
            }
        }
        Ok(())
    }

    fn answered(&self) -> usize {
        self.tally.statuses.values().sum()
    }

    fn is_hopeless(&self) -> bool {
        !self.tally.statuses.contains_key(&200) && self.answered() >= HOPELESS
    }

    fn send_what_is_due(
        &mut self,
        sent: &mut usize,
        count: usize,
        started: Instant,
        every: Option<Duration>,
        tenants: Tenants,
    ) -> io::Result<()> {
        let now = Instant::now();
        for index in 0..self.clients.len() {
            if *sent == count || self.clients[index].is_busy {
                continue;
            }
            let due = every.map_or(now, |every| {
                started + every * u32::try_from(*sent).unwrap_or(u32::MAX)
            });
            if due > now {
                return Ok(());
            }
            if let Some(number) = tenants.number(*sent) {
                self.clients[index].name_tenant(number);
            }
            *sent += 1;
            if self.clients[index].begin(due).is_err() {
                self.end(index, true)?;
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let free = self.upstreams.iter().position(Option::is_none);
            let index = free.unwrap_or(self.upstreams.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, Token(UPSTREAM + index), interest)?;
            if free.is_none() {
                self.upstreams.push(None);
            }
            self.upstreams[index] = Some(Upstream::new(stream));
        }
    }

    /// Something has happened to a connection from Envoy.
    fn serve(&mut self, index: usize) {
        let Some(upstream) = self.upstreams.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let mut is_well = upstream.write(&self.answers).is_ok();
        match upstream.read(&mut self.buffer) {
            Event::Nothing => {}
            Event::Asked => {
                self.tally.seen += 1;
                self.tally.rewritten += usize::from(upstream.is_rewritten());
                self.tally.sent += upstream.request.size;
                is_well &= upstream.answer(&self.answers).is_ok();
                if upstream.is_pacing()
                    && let Some(stream) = self.streams.get_mut(upstream.client)
                {
                    *stream = Some(index);
                }
            }
            Event::Gone => is_well = false,
        }
        if !is_well {
            self.upstreams[index] = None;
        }
    }

    /// Something has happened to a connection to Envoy.
    fn listen(&mut self, index: usize, is_closed: bool) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(index) else {
            return Ok(());
        };
        // An answer may come before all is sent, and then sending fails: the answer counts.
        let _ = client.write();
        match client.read(&mut self.buffer) {
            Progress::Nothing | Progress::Some if is_closed => self.end(index, true),
            Progress::Nothing => Ok(()),
            Progress::Some => {
                self.go_on(index);
                Ok(())
            }
            Progress::Done => self.end(index, false),
            Progress::Gone => self.end(index, true),
        }
    }

    fn go_on(&mut self, client: usize) {
        let Some(&Some(index)) = self.streams.get(client) else {
            return;
        };
        if let Some(Some(upstream)) = self.upstreams.get_mut(index) {
            if upstream.go_on(&self.answers).is_err() {
                self.upstreams[index] = None;
            } else if !upstream.is_pacing() {
                self.streams[client] = None;
            }
        }
    }

    fn lose_patience(&mut self) {
        for client in 0..self.streams.len() {
            self.go_on(client);
        }
    }

    /// A client's request has come to its end, or its connection has.
    fn end(&mut self, index: usize, is_gone: bool) -> io::Result<()> {
        self.streams[index] = None;
        let client = &mut self.clients[index];
        if client.is_busy {
            client.is_busy = false;
            let status = if client.answer.is_done() {
                client.answer.status()
            } else {
                0
            };
            let status = if is_gone && client.answer.has_begun() {
                client.answer.status()
            } else {
                status
            };
            *self.tally.statuses.entry(status).or_default() += 1;
            self.tally.received += client.answer.size;
            self.tally.last.push(client.due.elapsed());
            self.tally
                .first
                .extend(client.first.map(|first| first - client.due));
        }
        let closes = client
            .answer
            .header("connection")
            .is_some_and(|word| word.eq_ignore_ascii_case("close"));
        if is_gone || closes {
            self.clients[index] = self.connect(index)?;
        }
        Ok(())
    }
}
