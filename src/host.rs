//! The proxy: the only module that calls it, and the only one with `unsafe` code.
//!
//! The functions are imported here and not taken from the SDK for Rust, because that panics on every status that
//! it does not expect and on header values that are not UTF-8: one request with a byte 0xff would end the VM and
//! every stream in it. Here a call that fails says `None` or does nothing.
//!
//! The interface is proxy-wasm ABI 0.2.1 as Envoy implements it: <https://github.com/proxy-wasm/spec>.
#![expect(unsafe_code, reason = "the host's functions are foreign")]

use std::alloc::{Layout, alloc};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use crate::headers::Header;
use crate::name::NameHashing;
use crate::series::Series;
use crate::store::{PutError, Store, Version};
use crate::telemetry::{Field, Metric};
use crate::tenant::{Headers, Properties};
use crate::text::Text;
use crate::units::Timestamp;

/// Status of a host call; all others are one failure like another.
const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const CAS_MISMATCH: u32 = 8;

/// A version that no write has, so that a put with it succeeds only where there is no value.
///
/// The host compares versions only for keys that exist (proxy-wasm-cpp-host, `shared_data.cc`) and counts
/// them up from 1.
const ABSENT: u32 = u32::MAX;

const COUNTER: u32 = 0;
const GAUGE: u32 = 1;

/// Which headers.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Map {
    Request = 0,
    RequestTrailers = 1,
    Response = 2,
    ResponseTrailers = 3,
}

/// Which bytes.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Buffer {
    RequestBody = 0,
    ResponseBody = 1,
    PluginConfiguration = 7,
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_get_log_level(level: *mut u32) -> u32;
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, key_size: usize) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        data: *mut *mut u8,
        data_size: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        data: *const u8,
        data_size: usize,
    ) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, data: *const u8, size: usize) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        data: *const u8,
        size: usize,
        cas: u32,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
}

/// The proxy, as one thread of it sees it.
pub(crate) struct Host {
    /// Ids of metrics: the host makes a new one each time that it is asked. Bounded, as the series are.
    metrics: RefCell<HashMap<Series, u32, NameHashing>>,
    /// A corrupt record was complained about: once is enough.
    pub(crate) complained: Cell<bool>,
    /// Bytes of held bodies that the filters of this worker keep.
    pub(crate) kept: Cell<usize>,
}

impl Host {
    pub(crate) const fn new() -> Self {
        Self {
            metrics: RefCell::new(HashMap::with_hasher(NameHashing::new())),
            complained: Cell::new(false),
            kept: Cell::new(0),
        }
    }

    /// The time; the epoch if the host does not tell it.
    pub(crate) fn now(&self) -> Timestamp {
        let mut nanos = 0;
        // SAFETY: the pointer is to a local that outlives the call.
        let status = unsafe { proxy_get_current_time_nanoseconds(&raw mut nanos) };
        Timestamp::from_nanos(if status == OK { nanos } else { 0 })
    }

    /// The most talkative level that the host shows.
    pub(crate) fn log_level(&self) -> log::LevelFilter {
        let mut level = 0;
        // SAFETY: as in `now`.
        let status = unsafe { proxy_get_log_level(&raw mut level) };
        match (status, level) {
            (OK, 0) => log::LevelFilter::Trace,
            (OK, 1) => log::LevelFilter::Debug,
            (OK, 3) => log::LevelFilter::Warn,
            (OK, 4..) => log::LevelFilter::Error,
            _ => log::LevelFilter::Info,
        }
    }

    /// All headers of a message, in one call.
    pub(crate) fn headers(&self, map: Map) -> Headers {
        // SAFETY: both pointers are to locals of `returned`.
        let bytes =
            returned(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) });
        Headers::in_form(bytes.unwrap_or_default())
    }

    /// Puts a header in the place of all of that name.
    pub(crate) fn set_header(&self, map: Map, name: &str, value: &Text) {
        // SAFETY: name and value outlive the call.
        let status = value.with_bytes(|value| unsafe {
            proxy_replace_header_map_value(
                map as u32,
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            )
        });
        complain(status, "set a header");
    }

    /// Puts a header beside all that are there. It costs less than half of what a replacement does.
    pub(crate) fn add_header(&self, map: Map, name: &str, value: &Text) {
        // SAFETY: name and value outlive the call.
        let status = value.with_bytes(|value| unsafe {
            proxy_add_header_map_value(
                map as u32,
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            )
        });
        complain(status, "add a header");
    }

    pub(crate) fn remove_header(&self, map: Map, name: &[u8]) {
        // SAFETY: name outlives the call.
        let status =
            unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) };
        complain(status, "remove a header");
    }

    /// Up to `size` bytes of a buffer from `start` on; nothing where there are none.
    pub(crate) fn bytes(&self, buffer: Buffer, start: usize, size: usize) -> Vec<u8> {
        if size == 0 {
            return Vec::new();
        }
        // SAFETY: both pointers are to locals of `returned`.
        let bytes = returned(|data, length| unsafe {
            proxy_get_buffer_bytes(buffer as u32, start, size, data, length)
        });
        bytes.unwrap_or_default()
    }

    /// Puts `bytes` in the place of the first `size` bytes of a buffer, of which there are `total`.
    ///
    /// Says whether it did: nothing was changed if not.
    pub(crate) fn replace_start(
        &self,
        buffer: Buffer,
        size: usize,
        total: usize,
        bytes: &[u8],
    ) -> bool {
        // A size beyond the buffer's means all of it; the exact size of all of it is taken as a prefix by newer hosts only.
        let size = if size >= total { usize::MAX } else { size };
        // SAFETY: bytes outlive the call.
        let status =
            unsafe { proxy_set_buffer_bytes(buffer as u32, 0, size, bytes.as_ptr(), bytes.len()) };
        complain(status, "change a body");
        status == OK
    }

    /// Puts `bytes` before all that a buffer has. Says whether it did.
    pub(crate) fn prepend(&self, buffer: Buffer, bytes: &[u8]) -> bool {
        self.replace_start(buffer, 0, 1, bytes)
    }

    /// Answers the request ourselves.
    pub(crate) fn reply(&self, status: u16, details: &str, headers: &[Header], body: &str) {
        let headers: Headers = headers
            .iter()
            .map(|(name, value)| (name, value.to_string()))
            .collect();
        let headers = headers.as_form();
        // SAFETY: all slices outlive the call. -1: no gRPC status.
        let status = unsafe {
            proxy_send_local_response(
                status.into(),
                details.as_ptr(),
                details.len(),
                body.as_ptr(),
                body.len(),
                headers.as_ptr(),
                headers.len(),
                -1,
            )
        };
        complain(status, "answer a request");
    }

    pub(crate) fn count(&self, metric: &Metric) {
        // SAFETY: plain numbers.
        let status = match metric {
            // The host takes an increment by nothing for a mistake.
            Metric::Add(series, 0) => {
                self.metric(COUNTER, series);
                OK
            }
            Metric::Add(series, by) => {
                let by = i64::try_from(*by).unwrap_or(i64::MAX);
                self.metric(COUNTER, series)
                    .map_or(OK, |id| unsafe { proxy_increment_metric(id, by) })
            }
            Metric::Set(series, value) => {
                self.announce(series, *value);
                OK
            }
        };
        complain(status, "count");
    }

    /// Makes a field known to the access log.
    pub(crate) fn tell(&self, (key, value): &Field) {
        // SAFETY: key and value outlive the call.
        let status = value.with_bytes(|value| unsafe {
            proxy_set_property(key.as_ptr(), key.len(), value.as_ptr(), value.len())
        });
        complain(status, "set a property");
    }

    fn metric(&self, kind: u32, series: &Series) -> Option<u32> {
        let mut known = self.metrics.try_borrow_mut().ok()?;
        if let Some(id) = known.get(series) {
            return Some(*id);
        }
        let (name, mut id) = (series.name(), 0);
        // SAFETY: name and id outlive the call.
        let status = unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut id) };
        complain(status, "define a metric");
        (status == OK).then(|| *known.entry(series.clone()).or_insert(id))
    }
}

impl Properties for Host {
    fn property(&self, path: &[String]) -> Option<Vec<u8>> {
        let path = path.join("\0");
        // SAFETY: the path outlives the call; the other pointers are to locals of `returned`.
        returned(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
            .ok()
    }
}

impl Store for Host {
    fn get(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, PutError> {
        let mut cas = 0;
        // SAFETY: key and cas outlive the call; the other pointers are to locals of `returned`.
        let value = returned(|data, size| unsafe {
            proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut cas)
        });
        match value {
            Ok(value) => Ok(Some((value, Version(cas)))),
            Err(NOT_FOUND) => Ok(None),
            Err(_) => Err(PutError::Unavailable),
        }
    }

    fn put(&self, key: &str, value: &[u8], expected: Option<Version>) -> Result<(), PutError> {
        let cas = expected.map_or(ABSENT, |Version(cas)| cas);
        // SAFETY: key and value outlive the call.
        match unsafe {
            proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas)
        } {
            OK => Ok(()),
            CAS_MISMATCH => Err(PutError::Conflict),
            _ => Err(PutError::Unavailable),
        }
    }

    fn announce(&self, gauge: &Series, value: u64) {
        if let Some(id) = self.metric(GAUGE, gauge) {
            // SAFETY: plain numbers.
            complain(unsafe { proxy_record_metric(id, value) }, "set a gauge");
        }
    }
}

/// Memory that the host writes into, for [`returned`]; null where there is none.
pub(crate) fn allocate(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size) {
        // SAFETY: the layout is not empty.
        Ok(layout) if size > 0 => unsafe { alloc(layout) },
        _ => std::ptr::null_mut(),
    }
}

/// Runs a host call that returns bytes, or its status if it fails.
fn returned(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, u32> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    match call(&raw mut data, &raw mut size) {
        OK if data.is_null() => Ok(Vec::new()),
        // SAFETY: the host has this memory from `allocate`, with the layout of so many bytes, has filled it, and gives it away.
        OK => Ok(unsafe { Vec::from_raw_parts(data, size, size) }),
        status => Err(status),
    }
}

/// Sends what is logged, and a panic's message, to the proxy's log.
pub(crate) fn log_to_proxy() {
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
    std::panic::set_hook(Box::new(|panic| write(CRITICAL, &panic.to_string())));
}

/// The proxy's log.
struct Logger;

const CRITICAL: u32 = 5;

impl log::Log for Logger {
    fn enabled(&self, about: &log::Metadata<'_>) -> bool {
        about.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = match record.level() {
                log::Level::Trace => 0,
                log::Level::Debug => 1,
                log::Level::Info => 2,
                log::Level::Warn => 3,
                log::Level::Error => 4,
            };
            write(level, &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn write(level: u32, message: &str) {
    // SAFETY: the message outlives the call. A log that fails cannot be told about.
    unsafe { proxy_log(level, message.as_ptr(), message.len()) };
}

/// A call that should not fail did. Nothing can be done about it, but it should be seen.
fn complain(status: u32, what: &str) {
    if status != OK {
        log::warn!("bursar could not {what}: host status {status}");
    }
}
