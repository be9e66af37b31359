//! A real Redis or Valkey for a test, spoken to as the filter does through the proxy: one connection for each call, closed for
//! writing once the call is sent, read to its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use bursar::lease::resp::push_command;

/// The servers that `make stores` sets up.
pub(crate) const SERVERS: [&str; 2] = ["redis-server", "valkey-server"];

/// A running server, ended when the test is.
pub(crate) struct Store {
    process: Child,
    folder: PathBuf,
}

impl Store {
    pub(crate) fn start(server: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let binary = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("target/tools/stores")
            .join(server);
        assert!(
            binary.exists(),
            "there is no {server} to test with: run `make stores` first"
        );
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Short: a socket's path has a hundred bytes or so.
        let folder = std::env::temp_dir().join(format!("bursar-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut process = Command::new(binary)
            .args(["--port", "0", "--unixsocket", "s", "--save", "", "--dir"])
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
        Self { process, folder }
    }

    /// Sends a body, and says what came back.
    pub(crate) fn call(&self, body: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(self.folder.join("s")).unwrap();
        stream.write_all(body).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
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
