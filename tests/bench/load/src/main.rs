//! Load generator and upstream of `make bench`, in one thread: the core beside Envoy's has nothing else to switch between, and
//! an event of a paced stream can leave when the client has read the one before, with no clock in it.
//!
//! It tells the upstream's port on the first line of its output, and then takes a command a line, answered by a line each:
//!
//! ```text
//! open PORT CONNECTIONS HEAD BODY   connections to an Envoy, and the files with what they send
//! run COUNT RATE TENANTS FIRST      so many requests; RATE a second, 0: as fast as they are answered; TENANTS ids in turn,
//!                                   from number FIRST on, in the place of HEAD's, 0: its own. -> key=value ...
//! close
//! ```
//!
//! HEAD is a request's head without its `content-length`. Its header `x-bench` tells the upstream how to answer: `json`, `burst`
//! (events at once) or `paced` (one at a time).

mod answers;
mod client;
mod machine;
mod message;
mod tally;
mod upstream;

use std::io::{self, BufRead, Write};
use std::time::Duration;

use machine::{Machine, Tenants};

fn main() -> io::Result<()> {
    let mut machine = Machine::new()?;
    println!("{}", machine.port()?);
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words.as_slice() {
            ["open", port, connections, head, body] => {
                machine.open(
                    number(port)?,
                    number(connections)?,
                    &std::fs::read(head)?,
                    &std::fs::read(body)?,
                )?;
                "ok".to_owned()
            }
            ["run", count, rate, tenants, first] => {
                let rate: u32 = number(rate)?;
                let every = (rate > 0).then(|| Duration::from_secs(1) / rate);
                machine
                    .run(
                        number(count)?,
                        every,
                        Tenants {
                            count: number(tenants)?,
                            first: number(first)?,
                        },
                    )?
                    .to_string()
            }
            ["close"] => {
                machine.close();
                "ok".to_owned()
            }
            _ => return Err(io::Error::other(format!("no command: {line}"))),
        };
        println!("{answer}");
        io::stdout().flush()?;
    }
    Ok(())
}

fn number<N: std::str::FromStr>(word: &str) -> io::Result<N> {
    word.parse()
        .map_err(|_| io::Error::other(format!("no number: {word}")))
}
