//! The calls of the proxy that bursar makes for a request that it downgrades, and nothing in between: no JSON is read, no state is
//! understood, no number is written. What this costs is the floor for any filter that tells its operators and its callers as
//! much as bursar does; what bursar costs more is its own.
//!
//! It looks for the model's name as plain text, and for no quotes around it: that is no way to read JSON.

mod told;

use std::cell::Cell;
use std::ptr;

use told::{AT_DECISION, COUNTERS, LOG, Pair, RESPONSE};

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        size: usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        size: usize,
    ) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        data: *mut *mut u8,
        length: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        data: *const u8,
        length: usize,
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
    fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
}

const REQUEST: u32 = 0;
const ANSWER: u32 = 2; // as a map; as a buffer it is 1
const CONTINUE: u32 = 0;
const PAUSE: u32 = 1;

/// Longer than any record of bursar's for one tenant.
const RECORD: [u8; 256] = [0; 256];
const KEY: &[u8] = b"calls/tenant-0000000";

thread_local! {
    static IDS: [Cell<u32>; COUNTERS.len()] = const { [const { Cell::new(0) }; COUNTERS.len()] };
    static GAUGE: Cell<u32> = const { Cell::new(0) };
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    Box::into_raw(vec![0_u8; size].into_boxed_slice()).cast()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(_: u32, _: u32) {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(_: u32, _: usize) -> bool {
    IDS.with(|ids| {
        ids.iter()
            .zip(COUNTERS)
            .for_each(|(id, name)| id.set(define(0, name)))
    });
    GAUGE.set(define(1, told::GAUGE));
    true
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(_: u32, _: usize, _: bool) -> u32 {
    headers(REQUEST);
    clock();
    PAUSE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(_: u32, size: usize, is_end: bool) -> u32 {
    if !is_end {
        return PAUSE;
    }
    let body = bytes(0, size);
    clock();
    charge();
    if let Some(at) = body
        .windows(told::ASKED.len())
        .rposition(|text| text == told::ASKED)
    {
        let before = body.get(..at).unwrap_or_default();
        let changed = [before, told::SERVED].concat();
        let length = (size + told::SERVED.len() - told::ASKED.len()).to_string();
        set(REQUEST, ("content-length", &length));
        // SAFETY: what is put there outlives the call.
        unsafe {
            proxy_set_buffer_bytes(
                0,
                0,
                at + told::ASKED.len(),
                changed.as_ptr(),
                changed.len(),
            )
        };
    }
    add(REQUEST, ("x-bursar-tier", "compact"));
    count(..AT_DECISION);
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(_: u32, _: usize) -> u32 {
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(_: u32, _: usize, _: bool) -> u32 {
    headers(ANSWER);
    clock();
    RESPONSE.iter().for_each(|header| add(ANSWER, *header));
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(_: u32, size: usize, is_end: bool) -> u32 {
    if size > 0 {
        bytes(1, size);
    }
    if is_end {
        clock();
        charge();
        count(AT_DECISION..);
        // SAFETY: plain numbers.
        unsafe { proxy_record_metric(GAUGE.get(), 1_000_000) };
    }
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_trailers(_: u32, _: usize) -> u32 {
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(_: u32) {
    let (key, value) = LOG;
    // SAFETY: as in `add`.
    unsafe { proxy_set_property(key.as_ptr(), key.len(), value.as_ptr(), value.len()) };
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(_: u32) {}

fn clock() {
    let mut time = 0;
    // SAFETY: the pointer is to a local that outlives the call.
    unsafe { proxy_get_current_time_nanoseconds(&raw mut time) };
}

fn headers(map: u32) -> Vec<u8> {
    // SAFETY: both pointers are to locals of `returned`.
    returned(|data, size| unsafe { proxy_get_header_map_pairs(map, data, size) })
}

fn bytes(buffer: u32, size: usize) -> Vec<u8> {
    // SAFETY: as in `headers`.
    returned(|data, length| unsafe { proxy_get_buffer_bytes(buffer, 0, size, data, length) })
}

/// A read of the tenant's record and a compare-and-swap of it.
fn charge() {
    let mut cas = 0;
    // SAFETY: key and cas outlive the call; the other pointers are to locals of `returned`.
    let record = returned(|data, size| unsafe {
        proxy_get_shared_data(KEY.as_ptr(), KEY.len(), data, size, &raw mut cas)
    });
    let record = if record.is_empty() {
        &RECORD[..]
    } else {
        &record
    };
    // SAFETY: key and record outlive the call.
    unsafe { proxy_set_shared_data(KEY.as_ptr(), KEY.len(), record.as_ptr(), record.len(), cas) };
}

fn add(map: u32, (key, value): Pair) {
    // SAFETY: key and value outlive the call.
    unsafe {
        proxy_add_header_map_value(map, key.as_ptr(), key.len(), value.as_ptr(), value.len())
    };
}

fn set(map: u32, (key, value): (&str, &str)) {
    // SAFETY: as in `add`.
    unsafe {
        proxy_replace_header_map_value(map, key.as_ptr(), key.len(), value.as_ptr(), value.len())
    };
}

fn define(kind: u32, name: &str) -> u32 {
    let mut id = 0;
    // SAFETY: name and id outlive the call.
    unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut id) };
    id
}

fn count(which: impl std::slice::SliceIndex<[Cell<u32>], Output = [Cell<u32>]>) {
    IDS.with(|ids| {
        for id in ids.get(which).unwrap_or_default() {
            // SAFETY: plain numbers.
            unsafe { proxy_increment_metric(id.get(), 1) };
        }
    });
}

fn returned(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Vec<u8> {
    let (mut data, mut size) = (ptr::null_mut(), 0);
    call(&raw mut data, &raw mut size);
    if data.is_null() {
        return Vec::new();
    }
    // SAFETY: the host has this memory from `proxy_on_memory_allocate`, with so many bytes.
    unsafe { Vec::from_raw_parts(data, size, size) }
}
