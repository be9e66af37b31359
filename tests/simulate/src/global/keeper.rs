//! The store: the script in a real Redis, whose clock is the simulation's, or the model of the script that bursar's tests use.

use bursar::calendar::window::Window;
use bursar::lease::call::{Call, SCRIPT};
use bursar::lease::line::{self, Answer, Line};
use bursar::lease::resp::{Reply, replies};

use crate::engine;
use crate::redis::{Store, at_clock, bulk, with_clock};

/// The place of the clock's seconds among the script's arguments.
const CLOCK: usize = 13;

/// What a Redis has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Microseconds of CPU, of the process.
    pub cpu: u64,
    /// Bytes of data.
    pub memory: u64,
}

pub enum Keeper {
    Model(Vec<Option<engine::Account>>),
    Real(Box<Real>),
}

pub struct Real {
    store: Store,
    /// The hash of the script with our clock.
    sha: String,
    keys: Vec<String>,
    before: Taken,
}

impl Keeper {
    pub fn model(tenants: u32) -> Self {
        Self::Model(vec![None; tenants as usize])
    }

    /// A Redis of its own. The script that ships reads the store's clock; here `redis.call('TIME')` is replaced by two more arguments.
    pub fn real(tenants: u32, window: Window) -> Self {
        let store = Store::start_with_tcp("redis-server");
        let loaded = store.run(&["SCRIPT", "LOAD", &with_clock(SCRIPT, CLOCK)]);
        let sha = loaded.split("\r\n").nth(1).expect("a hash").to_owned();
        let key = |tenant: u32| {
            let tenant = format!("tenant-{tenant}");
            let account = line::Account {
                domain: "llm",
                subject: &[&tenant],
                limit: "budget",
                unit: "tokens",
                generation: 0,
                window,
            };
            account.key()
        };
        let before = taken(&store);
        Self::Real(Box::new(Real {
            store,
            sha,
            keys: (0..tenants).map(key).collect(),
            before,
        }))
    }

    /// One call: the lines with their tenants, at a time in milliseconds. What is answered, in the same order.
    pub fn call(&mut self, lines: &[(u32, Line)], now: u64) -> Vec<Answer> {
        match self {
            Self::Model(accounts) => lines
                .iter()
                .map(|(tenant, line)| engine::take(&mut accounts[*tenant as usize], line, now, &[]))
                .collect(),
            Self::Real(real) => {
                let keyed = lines
                    .iter()
                    .map(|(tenant, line)| (real.keys[*tenant as usize].as_str(), *line));
                let (call, body) = Call::write(None, keyed, false);
                let body = at_clock(&body, lines.len(), &real.sha, now);
                let answers = call.read(Some(b"200"), &real.store.call(&body));
                let lines = answers.expect("the store answers").lines;
                lines
                    .into_iter()
                    .map(|answer| answer.expect("the script answers"))
                    .collect()
            }
        }
    }

    /// What the Redis has taken since it was started; `None` for the model.
    pub fn taken(&self) -> Option<Taken> {
        match self {
            Self::Model(_) => None,
            Self::Real(real) => {
                let all = taken(&real.store);
                Some(Taken {
                    cpu: all.cpu - real.before.cpu,
                    memory: all.memory.saturating_sub(real.before.memory),
                })
            }
        }
    }
}

fn taken(store: &Store) -> Taken {
    let info = store.run(&["INFO", "all"]);
    let field = |name: &str| {
        let lines = info.split("\r\n").filter_map(|line| line.split_once(':'));
        let found = lines.into_iter().find(|(key, _)| *key == name);
        found.map_or("", |(_, value)| value).to_owned()
    };
    let micros = |name| (field(name).parse::<f64>().unwrap_or_default() * 1e6) as u64;
    Taken {
        cpu: micros("used_cpu_user") + micros("used_cpu_sys"),
        memory: field("used_memory").parse().unwrap_or_default(),
    }
}

/// The sum of all grants of the accounts, by the store.
pub fn granted(keeper: &Keeper) -> u64 {
    match keeper {
        Keeper::Model(accounts) => accounts.iter().flatten().map(|account| account.total).sum(),
        Keeper::Real(real) => real
            .keys
            .iter()
            .map(|key| {
                let told = real.store.run(&["HGET", key, "a"]);
                match replies(told.as_bytes(), 1).ok().as_deref() {
                    Some([reply @ Reply::Bulk(Some(_))]) => bulk(reply)
                        .split(' ')
                        .next()
                        .and_then(|total| total.parse().ok())
                        .unwrap_or_default(),
                    _ => 0,
                }
            })
            .sum(),
    }
}
