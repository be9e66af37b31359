//! Who asks for what, when, through which proxy: a trace, played by each proxy from a moment of its own, for tenants of its own.

use crate::draw::Draw;
use crate::tenants::Request;
use crate::trace::SECOND;

/// So many proxies and tenants, and what they ask for.
#[derive(Clone, Copy, Debug)]
pub struct World {
    pub proxies: u32,
    pub tenants: u32,
    /// Tenants whose requests come through one proxy.
    pub of_a_proxy: u32,
    /// Requests a second through one proxy, of all its tenants: the trace is played as fast as that takes.
    pub rate: u64,
    /// The length of the window.
    pub seconds: u64,
    /// What is asked for, in percent of what the budgets hold.
    pub asked: u64,
}

/// A tenant's requests through one proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub tenant: u32,
    /// How many of the proxy's requests are this tenant's, against the others'.
    weight: u64,
}

/// The most that one tenant of a proxy asks for, against the least.
const UNEVEN: u64 = 8;

/// What a request asks for, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub used: u64,
    /// What is reserved for it: a token for each byte of its body, and the longest answer.
    pub reserved: u64,
    /// Nanoseconds until it is settled.
    pub takes: u64,
}

/// How fast the model writes, and how long it thinks before.
const FOR_A_TOKEN: u64 = SECOND / 50;
const BEFORE_THE_FIRST: u64 = SECOND / 2;

/// The requests of a trace, by time, and its length.
#[derive(Clone, Debug)]
pub struct Trace {
    asks: Vec<(u64, Ask)>,
    length: u64,
}

impl Trace {
    pub fn new(requests: &[Request]) -> Self {
        let first = requests.first().map_or(0, |request| request.row.at);
        let last = requests.last().map_or(0, |request| request.row.at);
        let asks = requests.iter().map(|request| {
            let ask = Ask {
                used: request.row.prompt + request.row.output,
                reserved: request.bytes + request.max_tokens,
                takes: BEFORE_THE_FIRST + FOR_A_TOKEN * request.row.output,
            };
            (request.row.at - first, ask)
        });
        Self {
            asks: asks.collect(),
            length: last - first + SECOND,
        }
    }

    /// Whole seconds that it takes at this rate.
    #[cfg(test)]
    pub fn laps(&self, rate: u64) -> u64 {
        self.asks.len() as u64 / rate
    }

    /// The mean reservation.
    pub fn reservation(&self) -> u64 {
        let all: u64 = self.asks.iter().map(|(_, ask)| ask.reserved).sum();
        all / self.asks.len().max(1) as u64
    }
}

impl World {
    /// The tenants of each proxy, one proxy after the other. Each tenant has a proxy, as far as there is room; the other places go to
    /// tenants by Zipf's law: the first tenant is almost everywhere. No tenant is twice in a proxy.
    pub fn routes(&self) -> Vec<Route> {
        let mut draw = Draw::new(15);
        let places = (self.proxies * self.of_a_proxy) as usize;
        let mut sums = Vec::with_capacity(self.tenants as usize);
        let mut sum = 0;
        for rank in 1..=u64::from(self.tenants) {
            sum += (1 << 40) / rank;
            sums.push(sum);
        }
        let mut routes: Vec<Route> = Vec::with_capacity(places);
        for proxy in 0..self.proxies {
            let mut own: Vec<u32> = (proxy..self.tenants)
                .step_by(self.proxies as usize)
                .take(self.of_a_proxy as usize)
                .collect();
            let wanted = self.of_a_proxy.min(self.tenants) as usize;
            let mut next = 0;
            // As many draws as are likely to find enough; the rest in order, so that this ends.
            for _ in 0..8 * wanted {
                let at = draw.below(sum);
                let tenant = sums.partition_point(|&sum| sum <= at) as u32;
                if own.len() < wanted && !own.contains(&tenant) {
                    own.push(tenant);
                }
            }
            while own.len() < wanted {
                if !own.contains(&next) {
                    own.push(next);
                }
                next += 1;
            }
            routes.extend(own.into_iter().map(|tenant| Route {
                tenant,
                weight: 1 + draw.below(UNEVEN),
            }));
        }
        routes
    }

    /// Tenants of one proxy, or all of them if there are fewer.
    pub fn places(&self) -> usize {
        self.of_a_proxy.min(self.tenants) as usize
    }

    /// The requests of a proxy: when, what, and at which of its places. Without end.
    pub fn requests<'a>(&self, proxy: u32, trace: &'a Trace, routes: &[Route]) -> Requests<'a> {
        let mut draw = Draw::new(u64::from(proxy) << 20 | 7);
        let places = self.places();
        let own = &routes[proxy as usize * places..][..places];
        let next = draw.below(trace.asks.len() as u64) as usize;
        // Between two requests of the trace, so that proxies that begin at the same one differ.
        let since = trace.asks[next].0.saturating_sub(draw.below(SECOND));
        Requests {
            trace,
            next,
            lap: 0,
            since,
            lasts: trace.asks.len() as u64 * SECOND / self.rate,
            weights: own.iter().map(|route| route.weight).collect(),
            draw,
        }
    }

    /// What each tenant's budget holds.
    pub fn budgets(&self, trace: &Trace, routes: &[Route]) -> Vec<u64> {
        let mut demand = vec![0; self.tenants as usize];
        for proxy in 0..self.proxies {
            let own = &routes[proxy as usize * self.places()..];
            let requests = self.requests(proxy, trace, routes);
            for (_, ask, place) in requests.take_while(|(at, ..)| *at < self.seconds * SECOND) {
                demand[own[place].tenant as usize] += ask.used;
            }
        }
        demand
            .into_iter()
            .map(|tokens| tokens * 100 / self.asked)
            .collect()
    }
}

/// See [`World::requests`].
pub struct Requests<'a> {
    trace: &'a Trace,
    next: usize,
    /// How often the trace has been played to its end.
    lap: u64,
    /// The moment of the trace at which the window begins.
    since: u64,
    /// Nanoseconds that the trace takes as it is played.
    lasts: u64,
    weights: Vec<u64>,
    draw: Draw,
}

impl Iterator for Requests<'_> {
    type Item = (u64, Ask, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let (at, ask) = self.trace.asks[self.next];
        let passed = u128::from(self.lap * self.trace.length + at - self.since);
        let at = passed * u128::from(self.lasts) / u128::from(self.trace.length);
        self.next += 1;
        if self.next == self.trace.asks.len() {
            (self.next, self.lap) = (0, self.lap + 1);
        }
        let place = self.draw.weighted(self.weights.iter().copied());
        Some((at as u64, ask, place))
    }
}
