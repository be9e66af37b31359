//! Frames of an AWS event stream as a server writes them; the check is reckoned bit by bit, in another way than the core does.
#![allow(unreachable_pub, reason = "borrowed by unit tests as a private module")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed set-up is a failed test"
)]

/// A frame with headers that are texts.
#[allow(
    dead_code,
    reason = "each test file that borrows this uses a part of it"
)]
pub fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in headers {
        bytes.push(u8::try_from(name.len()).unwrap());
        bytes.extend(name.as_bytes());
        bytes.push(7);
        bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(value.as_bytes());
    }
    let headers = bytes.len();
    bytes.extend(payload);
    sealed(bytes.len() + 16, headers, &bytes)
}

/// Base64 with padding, in which InvokeModelWithResponseStream wraps the events of a provider.
#[allow(
    dead_code,
    reason = "each test file that borrows this uses a part of it"
)]
pub fn base64(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |bytes: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| {
            bits << 8 | usize::from(bytes.get(at).copied().unwrap_or_default())
        });
        let digit = |at: usize| match at <= bytes.len() {
            true => char::from(digits[bits >> (18 - 6 * at) & 63]),
            false => '=',
        };
        [digit(0), digit(1), digit(2), digit(3)]
    };
    bytes.chunks(3).flat_map(group).collect()
}

/// A frame whose lengths may lie; the checks are right.
pub fn sealed(total: usize, headers: usize, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for length in [total, headers] {
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
    }
    bytes.extend(crc32(&bytes).to_be_bytes());
    bytes.extend(data);
    bytes.extend(crc32(&bytes).to_be_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}
