//! The proxy, as the filter calls it: through the SDK where the SDK cannot panic, otherwise through [`imports`](super::imports).

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

/// A version that no value ever has, so that a put with this version succeeds only if the key has no value.
///
/// The host compares versions only for keys that exist (proxy-wasm-cpp-host, `shared_data.cc`), and
/// versions count up from 1.
const ABSENT: u32 = u32::MAX;

/// The most requests that are parked at a time in one worker; the proxy holds their bodies in memory meanwhile.
const MOST_PARKED: usize = 256;

/// The most counters that are noted for the report at a time.
const MOST_NOTED: usize = 256;

/// After so many calls of [`Host::lately`] in a row the time is read again, lest it stand still in a VM that has no ticks any more.
const MOST_UNREAD: u32 = 32;

/// The proxy, as one of its threads sees it.
pub(crate) struct Host {
    /// Counts that were not yet reported to the host.
    counters: RefCell<Tally>,
    /// Ids of gauges, and of the counters that the report reads: the host would define a new one in each call. Bounded, as the
    /// series are.
    ids: RefCell<HashMap<Series, u32, NameHashing>>,
    /// Whether a corrupt record was logged: once is enough.
    pub(crate) complained: Cell<bool>,
    /// When this worker last read the time, and how often it has done without since.
    last: Cell<(Timestamp, u32)>,
    /// Whether it was logged how the proxy must be configured so that held headers get their body: once is enough.
    pub(crate) warned_of_held_headers: Cell<bool>,
    /// Bytes of held bodies that this worker's filters keep.
    pub(crate) kept: Cell<usize>,
    /// Bytes of bodies that wait in this worker's memory, over all requests.
    pub(crate) held: HeldBytes,
    /// What this worker knows of upstreams that refuse requests.
    pub(crate) pressed: PressureView,
    /// What this worker knows of budgets that proxies share.
    pub(crate) warm: Warm,
    /// Requests that wait for their part of a shared budget. At most [`MOST_PARKED`].
    parked: RefCell<Vec<Rc<RefCell<Stream>>>>,
    /// What this worker has to report to the store that proxies share.
    pub(crate) teller: RefCell<Teller>,
    /// Numbers of the configurations in force in this worker, the newest last. Only the newest configuration calls the store.
    roots: RefCell<Vec<u32>>,
    /// The slot seed of the process, once it was read.
    slot_seed: Cell<Option<SlotSeed>>,
    /// Whether this VM has served a request.
    pub(crate) serves: Cell<bool>,
    /// The configurations of this VM, the newest last.
    configs: RefCell<Vec<Weak<Config>>>,
    /// Whether one of the configurations serves the report.
    has_report: Cell<bool>,
    /// How many counters are noted for the report.
    noted: Cell<usize>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            counters: RefCell::default(),
            ids: RefCell::new(HashMap::with_hasher(NameHashing::new())),
            complained: Cell::new(false),
            last: Cell::default(),
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

    /// Adds a new configuration of this VM.
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

    /// The plan that a newer configuration than this one has for a tenant. The proxy keeps an old configuration until its last connection
    /// closes.
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

    /// A number that no other VM has drawn. The randomness comes from std's hash maps, which use WASI's `random_get`; Envoy takes those
    /// bytes from BoringSSL's `RAND_bytes` (proxy-wasm-cpp-host, `exports.cc`).
    pub(crate) fn chance(&self) -> u64 {
        RandomState::new().hash_one(0_u8)
    }

    /// Parks a request until it is woken.
    pub(crate) fn park(&self, stream: Rc<RefCell<Stream>>) {
        if let Ok(mut parked) = self.parked.try_borrow_mut() {
            parked.push(stream);
        }
    }

    /// Whether one more request may be parked.
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
        self.be_again(root);
    }

    /// Makes the context that the host is calling now the effective one again.
    pub(crate) fn be_again(&self, root: u32) {
        complain(imports::set_effective_context(root), "be itself again");
    }

    /// Resumes the request of the effective context.
    pub(crate) fn continue_request(&self) {
        complain(imports::continue_request(), "let a request go on");
    }

    /// Adds a configuration that comes into force. Returns its number in this worker.
    pub(crate) fn begin(&self) -> u32 {
        let Ok(mut roots) = self.roots.try_borrow_mut() else {
            return 0;
        };
        let number = roots.last().map_or(1, |last| last.wrapping_add(1));
        roots.push(number);
        number
    }

    /// Removes a configuration that the proxy drops.
    pub(crate) fn end(&self, number: u32) {
        if let Ok(mut roots) = self.roots.try_borrow_mut() {
            roots.retain(|other| *other != number);
        }
    }

    /// Whether this root context belongs to the newest configuration. The proxy may drop an older one before its call is answered.
    pub(crate) fn is_newest(&self, number: u32) -> bool {
        let roots = self.roots.try_borrow();
        roots.is_ok_and(|roots| roots.last() == Some(&number))
    }

    /// The time; the epoch if the host does not report it.
    pub(crate) fn now(&self) -> Timestamp {
        let now = Timestamp::from_nanos(imports::current_time().unwrap_or_default());
        self.last.set((now, 0));
        now
    }

    /// The time when this worker last read it, without a call to the host. Ticks read it too, and this does after [`MOST_UNREAD`] calls.
    pub(crate) fn lately(&self) -> Timestamp {
        let (last, calls) = self.last.get();
        if calls >= MOST_UNREAD {
            return self.now();
        }
        self.last.set((last, calls.saturating_add(1)));
        last
    }

    /// The most verbose level that the host logs.
    pub(crate) fn log_level(&self) -> log::LevelFilter {
        match imports::log_level() {
            Ok(0) => log::LevelFilter::Trace,
            Ok(1) => log::LevelFilter::Debug,
            Ok(3) => log::LevelFilter::Warn,
            Ok(4..) => log::LevelFilter::Error,
            _ => log::LevelFilter::Info,
        }
    }

    /// All headers of a message, read in one call.
    pub(crate) fn headers(&self, map: MapType) -> Headers {
        Headers::in_form(imports::headers(map).unwrap_or_default())
    }

    /// Replaces all headers of this name with one.
    pub(crate) fn set_header(&self, map: MapType, name: &str, value: &Text) {
        let done = value.with_bytes(|value| imports::replace_header(map, name, value));
        complain(done, "set a header");
    }

    /// Adds a header, and keeps those of the same name. This costs less than half of a replacement.
    pub(crate) fn add_header(&self, map: MapType, name: &str, value: &Text) {
        let done = value.with_bytes(|value| imports::add_header(map, name, value));
        complain(done, "add a header");
    }

    pub(crate) fn remove_header(&self, map: MapType, name: &[u8]) {
        complain(imports::remove_header(map, name), "remove a header");
    }

    /// Up to `size` bytes of a buffer, from `start` on; empty if the buffer has none there.
    ///
    /// The SDK panics if `start + size` overflows; here `size` comes from the host.
    pub(crate) fn bytes(&self, buffer: BufferType, start: usize, size: usize) -> Vec<u8> {
        if size == 0 || start.checked_add(size).is_none() {
            return Vec::new();
        }
        let bytes = hostcalls::get_buffer(buffer, start, size);
        bytes.ok().flatten().unwrap_or_default()
    }

    /// Bytes of the request's body that have reached the proxy, whether or not it has shown them; 0 if the proxy does not report it.
    ///
    /// Envoy's `request.total_size` counts the received body, plus the names and values of the headers
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
    /// Returns whether the host accepted it; if not, the buffer is unchanged.
    pub(crate) fn replace_start(
        &self,
        buffer: BufferType,
        size: usize,
        total: usize,
        bytes: &[u8],
    ) -> bool {
        // A size beyond the buffer's end means all of it. Only newer hosts accept the buffer's exact size as a prefix.
        let size = if size >= total { usize::MAX } else { size };
        let done = imports::replace_start(buffer, size, bytes);
        complain(done, "change a body");
        done.is_ok()
    }

    /// Prepends `bytes` to a buffer. Returns whether the host accepted it.
    pub(crate) fn prepend(&self, buffer: BufferType, bytes: &[u8]) -> bool {
        self.replace_start(buffer, 0, 1, bytes)
    }

    /// Answers the request locally.
    pub(crate) fn reply(&self, status: u16, details: &str, headers: &[Header], body: &str) {
        let headers: Headers = headers
            .iter()
            .map(|(name, value)| (name, value.to_string()))
            .collect();
        let done = imports::send_local_response(status, details, headers.as_form(), body);
        complain(done, "answer a request");
    }

    /// Adds up a counter until [`Host::tell_counters`], or sets a gauge at once.
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

    /// Reports to the host what was counted since the last report.
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

    /// Notes new counters for the report: only a few in each call, so that requests are not delayed.
    fn note_counters(&self, counters: &Tally) {
        for _ in 0..MOST_NOTED {
            let noted = self.noted.get();
            match counters.series(noted) {
                Some(series) if note(self, series) => self.noted.set(noted.saturating_add(1)),
                _ => return,
            }
        }
    }

    /// Requests that the host calls each root context once in this period.
    pub(crate) fn tick_each(&self, period: Duration) {
        complain(known(hostcalls::set_tick_period(period)), "have ticks");
    }

    /// Publishes a value as a property, which the access log can read.
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

    /// Read from shared data once.
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

/// The SDK's result, with the status as a number.
fn known(done: Result<(), proxy_wasm::types::Status>) -> Result<(), Status> {
    done.map_err(|status| status as Status)
}

/// Logs the failure of a call that should never fail. Nothing else can be done about it.
fn complain(done: Result<(), Status>, what: &str) {
    if let Err(status) = done {
        log::warn!("bursar could not {what}: host status {status}");
    }
}
