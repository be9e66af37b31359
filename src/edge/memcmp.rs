//! C's `memcmp`, to which all comparisons of slices and texts come: the C library of this target compares one byte at a time, which took a
//! tenth of a request's instructions.
#![expect(unsafe_code, reason = "`memcmp` is given pointers")]

use std::ffi::c_int;
use std::slice;

use crate::base::compare::compare;

/// See ISO C 7.26.4.1.
///
/// # Safety
/// `length` bytes can be read at both pointers.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, length: usize) -> c_int {
    // SAFETY: as the caller promises.
    let [one, other] = unsafe { [one, other].map(|bytes| slice::from_raw_parts(bytes, length)) };
    compare(one, other) as c_int
}
