//! A real Redis or Valkey for a test, spoken to as the filter does through the proxy: one connection for each call, closed for
//! writing once the call is sent, read to its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use bursar::lease::resp::{Reply, push_command, replies};

/// The servers that `make stores` sets up.
pub(crate) const SERVERS: [&str; 2] = ["redis-server", "valkey-server"];

/// A running server, ended when the test is.
pub(crate) struct Store {
    process: Child,
    folder: PathBuf,
    /// Where it listens for TCP; `None` if only on its socket in the folder.
    port: Option<u16>,
}

impl Store {
    /// Reached by a Unix socket, which takes no port from other tests.
    pub(crate) fn start(server: &str) -> Self {
        Self::start_at(server, None)
    }

    /// Reached by TCP, for measurements: a call costs the server more than by a Unix socket.
    pub(crate) fn start_with_tcp(server: &str) -> Self {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        drop(taken);
        Self::start_at(server, Some(port))
    }

    fn start_at(server: &str, port: Option<u16>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let mut binaries = crates.map(|folder| folder.join("target/tools/stores").join(server));
        let Some(binary) = binaries.find(|binary| binary.exists()) else {
            panic!("there is no {server} to test with: run `make stores` first");
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Short: a socket's path has a hundred bytes or so.
        let folder = std::env::temp_dir().join(format!("bursar-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut process = Command::new(binary)
            .args(["--port", &port.unwrap_or_default().to_string()])
            .args([
                "--bind",
                "127.0.0.1",
                "--unixsocket",
                "s",
                "--save",
                "",
                "--dir",
            ])
            .arg(&folder)
            .current_dir(&folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stdout.take().unwrap());
        let mut lines = log.lines().map_while(Result::ok);
        let ready = lines.any(|line| line.to_lowercase().contains("ready to accept connections"));
        assert!(ready, "{server} did not start");
        // What it logs from now on must go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            folder,
            port,
        }
    }

    /// Sends a body, and says what came back.
    pub(crate) fn call(&self, body: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        if let Some(port) = self.port {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(body).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_to_end(&mut answer).unwrap();
        } else {
            let mut stream = UnixStream::connect(self.folder.join("s")).unwrap();
            stream.write_all(body).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_to_end(&mut answer).unwrap();
        }
        answer
    }

    /// Runs one command, for the test's own sake, and says what came back as text.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let mut body = Vec::new();
        let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
        push_command(&mut body, &words);
        String::from_utf8(self.call(&body)).unwrap()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

// --- another clock -----------------------------------------------------------

/// The script with the test's clock in the place of the store's: in these two of its arguments.
pub(crate) fn with_clock(script: &str, seconds: usize) -> String {
    let clock = "redis.call('TIME')";
    assert_eq!(script.matches(clock).count(), 1);
    let micros = seconds + 1;
    script.replace(clock, &format!("{{ARGV[{seconds}], ARGV[{micros}]}}"))
}

/// A call of so many lines as it was written, at a time in milliseconds, to a script [`with_clock`]: `code` is that script if the call
/// brings one, else its hash.
pub(crate) fn at_clock(written: &[u8], lines: usize, code: &str, now: u64) -> Vec<u8> {
    // A command is written as a reply is: the lines, and the end.
    let read = replies(written, lines + 1).unwrap();
    let time = [(now / 1_000).to_string(), (now % 1_000 * 1_000).to_string()];
    let mut body = Vec::new();
    for (at, command) in read.iter().enumerate() {
        let mut words: Vec<_> = array(command).iter().map(bulk).collect();
        if at < lines {
            words[1] = code;
            words.extend(time.iter().map(String::as_str));
        }
        let words: Vec<_> = words.into_iter().map(str::as_bytes).collect();
        push_command(&mut body, &words);
    }
    body
}

pub(crate) fn array<'a, 'b>(reply: &'b Reply<'a>) -> &'b [Reply<'a>] {
    match reply {
        Reply::Array(Some(fields)) => fields,
        other => panic!("no array: {other:?}"),
    }
}

pub(crate) fn bulk<'a>(reply: &Reply<'a>) -> &'a str {
    match reply {
        Reply::Bulk(Some(text)) => std::str::from_utf8(text).unwrap(),
        other => panic!("no text: {other:?}"),
    }
}
