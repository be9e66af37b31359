//! Host calls that are imported here rather than taken from the SDK: the only `unsafe` code besides the allocator.
//!
//! The SDK (`proxy-wasm` 0.2.5) panics on a status that it does not list, and a panic ends the VM with every request in it. Some of the SDK's
//! calls are safe, since Envoy returns no other status for them: the log, metrics, and reading of bodies and of the configuration.
//! Those are used through [`host`](super::host). Each function below states why it does not use the SDK. Here a failed call is an `Err`
//! with the host's status.
//!
//! The interface is proxy-wasm ABI 0.2.1 as Envoy implements it: <https://github.com/proxy-wasm/spec>.
#![expect(unsafe_code, reason = "the host's functions are foreign")]

use proxy_wasm::types::{BufferType, Bytes, MapType};

/// The status of a host call: as `proxy_wasm::types::Status`, but it can have any value.
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
/// The SDK's function costs 289 more instructions a call (`make budget`), since it uses `SystemTime`; each chunk of a body reads the clock.
pub(crate) fn current_time() -> Result<u64, Status> {
    let mut nanos = 0;
    // SAFETY: the pointer is to a local that outlives the call.
    done(unsafe { proxy_get_current_time_nanoseconds(&raw mut nanos) }).map(|()| nanos)
}

/// The number of the lowest level that the host logs, counted from 0 (trace).
///
/// Envoy's `off` is 6, which the SDK's `LogLevel` lacks: reading 6 as a `LogLevel` would be undefined behaviour.
pub(crate) fn log_level() -> Result<u32, Status> {
    let mut level = 0;
    // SAFETY: the pointer is to a local that outlives the call.
    done(unsafe { proxy_get_log_level(&raw mut level) }).map(|()| level)
}

/// All headers of a message, in the form of [`Headers::in_form`](crate::http::Headers::in_form).
///
/// The SDK panics if the headers were already forwarded (BadArgument), and on a name that is not UTF-8. Only its functions of bytes accept
/// a value that is not UTF-8. The SDK also allocates twice for each header; here all headers stay in one block.
pub(crate) fn headers(map: MapType) -> Result<Bytes, Status> {
    // SAFETY: both pointers are to locals of `returned`.
    returned(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })
}

/// Replaces all headers of this name with one. The SDK panics if the headers were already forwarded (BadArgument).
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

/// Removes all headers of this name. The SDK panics as in [`replace_header`], and accepts only names that are UTF-8.
pub(crate) fn remove_header(map: MapType, name: &[u8]) -> Result<(), Status> {
    // SAFETY: the name outlives the call.
    done(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// Replaces the first `size` bytes of a buffer with `bytes`.
///
/// The SDK panics if the host refuses: Envoy before 1.36 only replaces the whole buffer (BadArgument), and there may be no
/// buffer (NotFound).
pub(crate) fn replace_start(buffer: BufferType, size: usize, bytes: &[u8]) -> Result<(), Status> {
    // SAFETY: the bytes outlive the call.
    done(unsafe { proxy_set_buffer_bytes(buffer as u32, 0, size, bytes.as_ptr(), bytes.len()) })
}

/// The property at a path whose parts are joined by NUL. The SDK panics on any status that Envoy does not return today, and which
/// statuses Envoy returns depends on the property.
pub(crate) fn property(path: &str) -> Result<Bytes, Status> {
    // SAFETY: the path outlives the call; the other pointers are to locals of `returned`.
    returned(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Sets a property whose path has one part. The SDK panics on every failure, for example if another filter made the property read-only.
pub(crate) fn set_property(name: &str, value: &[u8]) -> Result<(), Status> {
    // SAFETY: name and value outlive the call.
    done(unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// A value in shared data, and its version. The SDK panics on a status that it does not list; a failing store must lead to
/// `failure_mode`, not to a trap.
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

/// The current value of a metric. The SDK's function panics on a status that it does not list.
pub(crate) fn metric(id: u32) -> Result<u64, Status> {
    let mut value = 0;
    // SAFETY: the pointer is to a local that outlives the call.
    done(unsafe { proxy_get_metric(id, &raw mut value) }).map(|()| value)
}

/// Answers a request. The SDK's function cannot set details for the access log, and panics on every failure.
pub(crate) fn send_local_response(
    status: u16,
    details: &str,
    headers: &[u8],
    body: &str,
) -> Result<(), Status> {
    // SAFETY: all slices outlive the call. -1 means no gRPC status.
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

/// Sets the context that later calls refer to, such as that of a parked request. The SDK panics on a status that it does not list.
pub(crate) fn set_effective_context(context: u32) -> Result<(), Status> {
    // SAFETY: the call takes no pointers.
    done(unsafe { proxy_set_effective_context(context) })
}

/// Resumes a paused request. The SDK panics on every failure.
pub(crate) fn continue_request() -> Result<(), Status> {
    // SAFETY: the call takes no pointers. The stream type 0 is an HTTP request.
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
        // SAFETY: the host allocated this memory with the SDK's `proxy_on_memory_allocate`, with the layout of `size` bytes, has filled it,
        // and passes on ownership.
        OK => Ok(unsafe { Vec::from_raw_parts(data, size, size) }),
        status => Err(status),
    }
}
