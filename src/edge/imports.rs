//! Calls of the proxy that are imported here and not taken from the SDK: the only `unsafe` code beside the allocator.
//!
//! The SDK (`proxy-wasm` 0.2.5) panics on a status that it does not list, and a panic ends the VM and every request in it. What it
//! does well is called through it, in [`host`](super::host): the log, metrics, and reading of bodies and of the configuration, for which
//! Envoy has no status but those that the SDK takes. Each function below says why it is not among them. Here a failed call is an `Err`
//! with the host's status.
//!
//! The interface is proxy-wasm ABI 0.2.1 as Envoy implements it: <https://github.com/proxy-wasm/spec>.
#![expect(unsafe_code, reason = "the host's functions are foreign")]

use proxy_wasm::types::{BufferType, Bytes, MapType};

/// Status of a host call, as in `proxy_wasm::types::Status`, but of any value.
pub(crate) type Status = u32;

const OK: Status = 0;
pub(crate) const NOT_FOUND: Status = 1;
pub(crate) const CAS_MISMATCH: Status = 8;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> Status;
    fn proxy_get_log_level(level: *mut u32) -> Status;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> Status;
    fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> Status;
    fn proxy_add_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> Status;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, key_size: usize) -> Status;
    fn proxy_set_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        data: *const u8,
        data_size: usize,
    ) -> Status;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> Status;
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        data: *const u8,
        size: usize,
    ) -> Status;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> Status;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        data: *const u8,
        size: usize,
        cas: u32,
    ) -> Status;
    fn proxy_get_metric(id: u32, value: *mut u64) -> Status;
    fn proxy_set_effective_context(context: u32) -> Status;
    fn proxy_continue_stream(stream: u32) -> Status;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> Status;
}

/// Nanoseconds since the Unix epoch.
///
/// The SDK's costs 289 instructions more a call (`make budget`), since it goes over `SystemTime`, and each chunk of a body reads the clock.
pub(crate) fn current_time() -> Result<u64, Status> {
    let mut nanos = 0;
    // SAFETY: the pointer is to a local that outlives the call.
    done(unsafe { proxy_get_current_time_nanoseconds(&raw mut nanos) }).map(|()| nanos)
}

/// The number of the lowest level that the host logs, from 0 (trace) on.
///
/// Envoy's `off` is 6, which is no `LogLevel` of the SDK: reading it as one would be undefined behaviour.
pub(crate) fn log_level() -> Result<u32, Status> {
    let mut level = 0;
    // SAFETY: the pointer is to a local that outlives the call.
    done(unsafe { proxy_get_log_level(&raw mut level) }).map(|()| level)
}

/// All headers of a message, in the form of [`Headers::in_form`](crate::http::Headers::in_form).
///
/// The SDK panics where the headers have left already (BadArgument), and on a name or, but for its functions of bytes, a value that
/// is not UTF-8. It also allocates twice for each header, where here all of them stay in one block.
pub(crate) fn headers(map: MapType) -> Result<Bytes, Status> {
    // SAFETY: both pointers are to locals of `returned`.
    returned(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })
}

/// Replaces all headers of that name with one. The SDK panics where the headers have left already (BadArgument).
pub(crate) fn replace_header(map: MapType, name: &str, value: &[u8]) -> Result<(), Status> {
    let (name, value) = (name.as_bytes(), value);
    // SAFETY: name and value outlive the call.
    done(unsafe {
        proxy_replace_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Adds a header, and keeps those of the same name. The SDK panics as in [`replace_header`].
pub(crate) fn add_header(map: MapType, name: &str, value: &[u8]) -> Result<(), Status> {
    // SAFETY: name and value outlive the call.
    done(unsafe {
        proxy_add_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Removes all headers of a name. The SDK panics as in [`replace_header`], and takes names only that are UTF-8.
pub(crate) fn remove_header(map: MapType, name: &[u8]) -> Result<(), Status> {
    // SAFETY: the name outlives the call.
    done(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// Replaces the first `size` bytes of a buffer with `bytes`.
///
/// The SDK panics where the host does not do so: Envoy before 1.36 replaces all or nothing (BadArgument), and there may be no
/// buffer (NotFound).
pub(crate) fn replace_start(buffer: BufferType, size: usize, bytes: &[u8]) -> Result<(), Status> {
    // SAFETY: the bytes outlive the call.
    done(unsafe { proxy_set_buffer_bytes(buffer as u32, 0, size, bytes.as_ptr(), bytes.len()) })
}

/// The property at a path whose parts are joined by NUL. The SDK panics on a status other than those of Envoy today; which ones
/// a property gives depends on the property.
pub(crate) fn property(path: &str) -> Result<Bytes, Status> {
    // SAFETY: the path outlives the call; the other pointers are to locals of `returned`.
    returned(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Sets a property of one part. The SDK panics on every failure, such as that of a property which another filter made read-only.
pub(crate) fn set_property(name: &str, value: &[u8]) -> Result<(), Status> {
    // SAFETY: name and value outlive the call.
    done(unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// A value in shared data, and its version. The SDK panics on a status that it does not list: a store that fails is to be
/// answered by `failure_mode`, not by a trap.
pub(crate) fn shared_data(key: &str) -> Result<(Bytes, u32), Status> {
    let mut version = 0;
    // SAFETY: key and version outlive the call; the other pointers are to locals of `returned`.
    returned(|data, size| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut version)
    })
    .map(|value| (value, version))
}

/// Puts a value into shared data. The SDK panics as in [`shared_data`].
pub(crate) fn set_shared_data(key: &str, value: &[u8], version: u32) -> Result<(), Status> {
    // SAFETY: key and value outlive the call.
    done(unsafe {
        proxy_set_shared_data(
            key.as_ptr(),
            key.len(),
            value.as_ptr(),
            value.len(),
            version,
        )
    })
}

/// How far a metric is. The SDK's panics on a status that it does not know.
pub(crate) fn metric(id: u32) -> Result<u64, Status> {
    let mut value = 0;
    // SAFETY: the pointer is to a local that outlives the call.
    done(unsafe { proxy_get_metric(id, &raw mut value) }).map(|()| value)
}

/// Answers a request. The SDK's has no details for the access log, and panics on every failure.
pub(crate) fn send_local_response(
    status: u16,
    details: &str,
    headers: &[u8],
    body: &str,
) -> Result<(), Status> {
    // SAFETY: all slices outlive the call. -1: no gRPC status.
    done(unsafe {
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
    })
}

/// Makes another context, such as that of a parked request, the one that calls are about. The SDK panics on a status that it does not know.
pub(crate) fn set_effective_context(context: u32) -> Result<(), Status> {
    // SAFETY: there are no pointers.
    done(unsafe { proxy_set_effective_context(context) })
}

/// Resumes a paused request. The SDK panics on every failure.
pub(crate) fn continue_request() -> Result<(), Status> {
    // SAFETY: there are no pointers. The stream type 0 is an HTTP request.
    done(unsafe { proxy_continue_stream(0) })
}

fn done(status: Status) -> Result<(), Status> {
    match status {
        OK => Ok(()),
        status => Err(status),
    }
}

/// Runs a host call that returns bytes.
fn returned(call: impl FnOnce(*mut *mut u8, *mut usize) -> Status) -> Result<Bytes, Status> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    match call(&raw mut data, &raw mut size) {
        OK if data.is_null() || size == 0 => Ok(Bytes::new()),
        // SAFETY: the host has this memory from the SDK's `proxy_on_memory_allocate`, with the layout of `size` bytes, has filled it,
        // and gives it away.
        OK => Ok(unsafe { Vec::from_raw_parts(data, size, size) }),
        status => Err(status),
    }
}
