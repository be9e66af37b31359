//! The proxy, as the filter speaks to it: through the SDK where that cannot panic, else through [`imports`](super::imports).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::{Rc, Weak};
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, MetricType};

use crate::base::name::NameHashing;
use crate::base::text::Text;
use crate::base::units::Timestamp;
use crate::config::{Config, Plan};
use crate::edge::filter::Stream;
use crate::edge::imports::{self, CAS_MISMATCH, NOT_FOUND, Status};
use crate::exchange::{HeldBytes, Warm};
use crate::health::pressed::PressureView;
use crate::http::{Headers, Properties};
use crate::overview::{Counters, note};
use crate::published::metric::Series;
use crate::published::metric::tally::Tally;
use crate::report::headers::Header;
use crate::report::metrics::Metric;
use crate::state::slots::SlotSeed;
use crate::state::store::{PutError, Store, Version};
use crate::sweep::Gauges;
use crate::teller::Teller;
use crate::tenant::TenantId;

/// A version that no write has, so that a put with it succeeds only where there is no value.
///
/// The host compares versions only for keys that exist (proxy-wasm-cpp-host, `shared_data.cc`) and counts
/// them up from 1.
const ABSENT: u32 = u32::MAX;

/// Most requests that wait at a time in one worker: their bodies wait with them, in the proxy.
const MOST_PARKED: usize = 256;

/// Counters that are noted at a time.
const MOST_NOTED: usize = 256;

/// The proxy, as one thread of it sees it.
pub(crate) struct Host {
    /// What was counted and not yet reported to the host.
    counters: RefCell<Tally>,
    /// Ids of gauges, and of the counters that the report reads: the host makes a new one each time that it is asked. Bounded, as the
    /// series are.
    ids: RefCell<HashMap<Series, u32, NameHashing>>,
    /// A corrupt record was complained about: once is enough.
    pub(crate) complained: Cell<bool>,
    /// The cure for held headers whose body never comes was logged: once is enough.
    pub(crate) warned_of_held_headers: Cell<bool>,
    /// Bytes of held bodies that the filters of this worker keep.
    pub(crate) kept: Cell<usize>,
    /// What waits in this worker's memory of the bodies of all requests.
    pub(crate) held: HeldBytes,
    /// What this worker knows of upstreams that refuse.
    pub(crate) pressed: PressureView,
    /// What it knows of budgets that proxies share.
    pub(crate) warm: Warm,
    /// Requests that wait for their part of one. At most [`MOST_PARKED`].
    parked: RefCell<Vec<Rc<RefCell<Stream>>>>,
    /// What this worker has to report to the store that proxies share.
    pub(crate) teller: RefCell<Teller>,
    /// The configurations that are in force in this worker, the newest last: that one speaks for all.
    roots: RefCell<Vec<u32>>,
    /// The process's, once it was read.
    slot_seed: Cell<Option<SlotSeed>>,
    /// This VM has served a request.
    pub(crate) serves: Cell<bool>,
    /// The configurations of this VM, the newest last.
    configs: RefCell<Vec<Weak<Config>>>,
    /// One of them is the report.
    has_report: Cell<bool>,
    /// So many of the counters are noted for it.
    noted: Cell<usize>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            counters: RefCell::default(),
            ids: RefCell::new(HashMap::with_hasher(NameHashing::new())),
            complained: Cell::new(false),
            warned_of_held_headers: Cell::new(false),
            kept: Cell::new(0),
            held: HeldBytes::default(),
            pressed: PressureView::default(),
            warm: Warm::default(),
            parked: RefCell::default(),
            teller: RefCell::default(),
            roots: RefCell::default(),
            slot_seed: Cell::new(None),
            serves: Cell::new(false),
            configs: RefCell::default(),
            has_report: Cell::new(false),
            noted: Cell::new(0),
        }
    }

    /// There is a new configuration.
    pub(crate) fn configured(&self, config: &Rc<Config>) {
        if let Ok(mut configs) = self.configs.try_borrow_mut() {
            configs.retain(|config| config.strong_count() > 0);
            configs.push(Rc::downgrade(config));
            self.has_report
                .set(self.has_report.get() || config.is_report);
        }
    }

    /// The configurations of this VM, the newest first.
    pub(crate) fn configs(&self) -> Vec<Rc<Config>> {
        let configs = self.configs.try_borrow();
        configs.map_or_else(
            |_| Vec::new(),
            |configs| configs.iter().rev().filter_map(Weak::upgrade).collect(),
        )
    }

    /// The plan that a newer configuration than this one has for a tenant. The proxy keeps an old configuration as long as its last connection.
    pub(crate) fn newer_plan(&self, config: &Rc<Config>, id: &TenantId) -> Option<Rc<Plan>> {
        let configs = self.configs.try_borrow().ok()?;
        let newer = configs.iter().rev().map(Weak::upgrade);
        let is_newer = |other: &Option<Rc<Config>>| match other {
            Some(other) => !Rc::ptr_eq(other, config),
            None => true,
        };
        let mut newer = newer.take_while(is_newer).flatten();
        newer.find_map(|other| other.plan(id).cloned())
    }

    /// A number that no other VM has drawn. Its randomness is that of std's hash maps: WASI's `random_get`, which Envoy takes from
    /// BoringSSL's `RAND_bytes` (proxy-wasm-cpp-host, `exports.cc`).
    pub(crate) fn chance(&self) -> u64 {
        RandomState::new().hash_one(0_u8)
    }

    /// A request waits, until it is woken.
    pub(crate) fn park(&self, stream: Rc<RefCell<Stream>>) {
        if let Ok(mut parked) = self.parked.try_borrow_mut() {
            parked.push(stream);
        }
    }

    /// Whether more requests may wait.
    pub(crate) fn may_park(&self) -> bool {
        let parked = self.parked.try_borrow();
        parked.is_ok_and(|parked| parked.len() < MOST_PARKED)
    }

    /// Has every parked request check again whether it can be forwarded. `root`: the context that the host is calling now.
    pub(crate) fn wake(&self, root: u32) {
        let Ok(waiting) = self
            .parked
            .try_borrow_mut()
            .map(|mut all| std::mem::take(&mut *all))
        else {
            return;
        };
        if waiting.is_empty() {
            return;
        }
        for stream in waiting {
            let still_waits = stream
                .try_borrow_mut()
                .is_ok_and(|mut stream| stream.wake());
            if still_waits {
                self.park(stream);
            }
        }
        complain(imports::set_effective_context(root), "be itself again");
    }

    /// Resumes the request of the effective context.
    pub(crate) fn continue_request(&self) {
        complain(imports::continue_request(), "let a request go on");
    }

    /// A configuration comes into force: its number among those of this worker.
    pub(crate) fn begin(&self) -> u32 {
        let Ok(mut roots) = self.roots.try_borrow_mut() else {
            return 0;
        };
        let number = roots.last().map_or(1, |last| last.wrapping_add(1));
        roots.push(number);
        number
    }

    /// A configuration is let go of.
    pub(crate) fn end(&self, number: u32) {
        if let Ok(mut roots) = self.roots.try_borrow_mut() {
            roots.retain(|other| *other != number);
        }
    }

    /// Whether this root context is the newest one. An older one may be dropped before its call is answered.
    pub(crate) fn is_newest(&self, number: u32) -> bool {
        let roots = self.roots.try_borrow();
        roots.is_ok_and(|roots| roots.last() == Some(&number))
    }

    /// The time; the epoch if the host does not say it.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(imports::current_time().unwrap_or_default())
    }

    /// The most talkative level that the host shows.
    pub(crate) fn log_level(&self) -> log::LevelFilter {
        match imports::log_level() {
            Ok(0) => log::LevelFilter::Trace,
            Ok(1) => log::LevelFilter::Debug,
            Ok(3) => log::LevelFilter::Warn,
            Ok(4..) => log::LevelFilter::Error,
            _ => log::LevelFilter::Info,
        }
    }

    /// All headers of a message, in one call.
    pub(crate) fn headers(&self, map: MapType) -> Headers {
        Headers::in_form(imports::headers(map).unwrap_or_default())
    }

    /// Replaces all headers of that name with one.
    pub(crate) fn set_header(&self, map: MapType, name: &str, value: &Text) {
        let done = value.with_bytes(|value| imports::replace_header(map, name, value));
        complain(done, "set a header");
    }

    /// Puts a header beside all that are there. It costs less than half of what a replacement does.
    pub(crate) fn add_header(&self, map: MapType, name: &str, value: &Text) {
        let done = value.with_bytes(|value| imports::add_header(map, name, value));
        complain(done, "add a header");
    }

    pub(crate) fn remove_header(&self, map: MapType, name: &[u8]) {
        complain(imports::remove_header(map, name), "remove a header");
    }

    /// Up to `size` bytes of a buffer from `start` on; nothing where there are none.
    ///
    /// The SDK panics where `start + size` overflows: `size` is what the host said that there is.
    pub(crate) fn bytes(&self, buffer: BufferType, start: usize, size: usize) -> Vec<u8> {
        if size == 0 || start.checked_add(size).is_none() {
            return Vec::new();
        }
        let bytes = hostcalls::get_buffer(buffer, start, size);
        bytes.ok().flatten().unwrap_or_default()
    }

    /// Bytes of the request's body that have come to the proxy, whether or not it has shown them; 0 where it does not say.
    ///
    /// Envoy's `request.total_size` is what has come and the names and values of the headers
    /// (`source/extensions/filters/common/expr/context.cc`).
    pub(crate) fn request_body_bytes(&self) -> u64 {
        let total = imports::property("request\0total_size").unwrap_or_default();
        let total = <[u8; 8]>::try_from(total).map_or(0, u64::from_le_bytes);
        let headers = self.headers(MapType::HttpRequestHeaders);
        let sizes = headers
            .iter()
            .map(|(name, value)| name.len().saturating_add(value.len()));
        let headers = u64::try_from(sizes.sum::<usize>()).unwrap_or(u64::MAX);
        total.saturating_sub(headers)
    }

    /// Replaces the first `size` of a buffer's `total` bytes with `bytes`.
    ///
    /// Returns whether it did: nothing was changed if not.
    pub(crate) fn replace_start(
        &self,
        buffer: BufferType,
        size: usize,
        total: usize,
        bytes: &[u8],
    ) -> bool {
        // A size beyond the buffer's means all of it; the exact size of all of it is taken as a prefix by newer hosts only.
        let size = if size >= total { usize::MAX } else { size };
        let done = imports::replace_start(buffer, size, bytes);
        complain(done, "change a body");
        done.is_ok()
    }

    /// Prepends `bytes` to a buffer. Returns whether it did.
    pub(crate) fn prepend(&self, buffer: BufferType, bytes: &[u8]) -> bool {
        self.replace_start(buffer, 0, 1, bytes)
    }

    /// Answers the request ourselves.
    pub(crate) fn reply(&self, status: u16, details: &str, headers: &[Header], body: &str) {
        let headers: Headers = headers
            .iter()
            .map(|(name, value)| (name, value.to_string()))
            .collect();
        let done = imports::send_local_response(status, details, headers.as_form(), body);
        complain(done, "answer a request");
    }

    /// Counters are added up until [`Host::tell_counters`]; gauges are set at once.
    pub(crate) fn count(&self, metric: &Metric) {
        match metric {
            Metric::Add(series, by) => {
                if let Ok(mut counters) = self.counters.try_borrow_mut() {
                    counters.add(series, *by);
                }
            }
            Metric::Set(series, value) => self.announce(series, *value),
        }
    }

    /// Reports to the host what was counted since the last time.
    pub(crate) fn tell_counters(&self) {
        let Ok(mut counters) = self.counters.try_borrow_mut() else {
            return;
        };
        counters.tell(
            |series| hostcalls::define_metric(MetricType::Counter, &series.name()).ok(),
            |id, by| {
                let by = i64::try_from(by).unwrap_or(i64::MAX);
                complain(known(hostcalls::increment_metric(id, by)), "count");
            },
        );
        if self.has_report.get() {
            self.note_counters(&counters);
        }
    }

    /// Notes new counters for the report: only a few at a time, so that requests are not delayed.
    fn note_counters(&self, counters: &Tally) {
        for _ in 0..MOST_NOTED {
            let noted = self.noted.get();
            match counters.series(noted) {
                Some(series) if note(self, series) => self.noted.set(noted.saturating_add(1)),
                _ => return,
            }
        }
    }

    /// Has the host call each root context so often.
    pub(crate) fn tick_each(&self, period: Duration) {
        complain(known(hostcalls::set_tick_period(period)), "have ticks");
    }

    /// Makes a value known to the access log.
    pub(crate) fn set_property(&self, name: &str, value: &[u8]) {
        complain(imports::set_property(name, value), "set a property");
    }

    fn id(&self, kind: MetricType, series: &Series) -> Option<u32> {
        let mut ids = self.ids.try_borrow_mut().ok()?;
        if let Some(id) = ids.get(series) {
            return Some(*id);
        }
        let id = hostcalls::define_metric(kind, &series.name()).ok()?;
        Some(*ids.entry(series.clone()).or_insert(id))
    }
}

impl Properties for Host {
    fn property(&self, path: &[String]) -> Option<Vec<u8>> {
        imports::property(&path.join("\0")).ok()
    }
}

impl Store for Host {
    fn get(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, PutError> {
        match imports::shared_data(key) {
            Ok((value, version)) => Ok(Some((value, Version(version)))),
            Err(NOT_FOUND) => Ok(None),
            Err(_) => Err(PutError::Unavailable),
        }
    }

    fn put(&self, key: &str, value: &[u8], expected: Option<Version>) -> Result<(), PutError> {
        let version = expected.map_or(ABSENT, |Version(version)| version);
        imports::set_shared_data(key, value, version).map_err(|status| match status {
            CAS_MISMATCH => PutError::Conflict,
            _ => PutError::Unavailable,
        })
    }

    /// Read once.
    fn slot_seed(&self) -> SlotSeed {
        if let Some(seed) = self.slot_seed.get() {
            return seed;
        }
        let fresh = [self.chance(), self.chance()].map(u64::to_le_bytes);
        let mut bytes = [0; 16];
        bytes.as_chunks_mut().0.copy_from_slice(&fresh);
        let agreed = SlotSeed::agree(self, bytes);
        self.slot_seed.set(agreed);
        agreed.unwrap_or(SlotSeed(bytes))
    }

    fn announce(&self, gauge: &Series, value: u64) {
        if let Some(id) = self.id(MetricType::Gauge, gauge) {
            complain(known(hostcalls::record_metric(id, value)), "set a gauge");
        }
    }
}

impl Counters for Host {
    fn value(&self, series: &Series) -> Option<u64> {
        let id = self.id(MetricType::Counter, series)?;
        imports::metric(id).ok()
    }
}

impl Gauges for Host {
    fn define(&self, series: &Series) -> Option<u32> {
        hostcalls::define_metric(MetricType::Gauge, &series.name()).ok()
    }

    fn set(&self, id: u32, value: u64) {
        complain(known(hostcalls::record_metric(id, value)), "set a gauge");
    }
}

/// The SDK's status as a number.
fn known(done: Result<(), proxy_wasm::types::Status>) -> Result<(), Status> {
    done.map_err(|status| status as Status)
}

/// A call that should not fail did. Nothing can be done about it, but it should be seen.
fn complain(done: Result<(), Status>, what: &str) {
    if let Err(status) = done {
        log::warn!("bursar could not {what}: host status {status}");
    }
}
