//! Comparing bytes by words.

use std::cmp::Ordering;

/// The order of two byte strings of the same length; only as many bytes count as both have.
#[must_use]
pub fn compare(one: &[u8], other: &[u8]) -> Ordering {
    // Most texts that are compared and differ do so in the first byte.
    match (one.first(), other.first()) {
        (Some(one), Some(other)) if one == other => {}
        (one, other) => return one.cmp(&other),
    }
    if let (Some(one_end), Some(other_end)) = (one.last_chunk(), other.last_chunk()) {
        let (words, _) = one.as_chunks();
        let (others, _) = other.as_chunks();
        // The last word overlaps the ones before it, which are equal.
        let words = words.iter().zip(others).chain([(one_end, other_end)]);
        return first_difference(
            words.map(|(one, other)| [one, other].map(|&word| u64::from_be_bytes(word))),
        );
    }
    first_difference(one.iter().zip(other).map(|(one, other)| [*one, *other]))
}

fn first_difference<T: Ord>(mut pairs: impl Iterator<Item = [T; 2]>) -> Ordering {
    pairs
        .find(|[one, other]| one != other)
        .map_or(Ordering::Equal, |[one, other]| one.cmp(&other))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_first_byte_that_differs_decides() {
        for length in 0..40 {
            let equal: Vec<u8> = (0..length).collect();
            assert_eq!(compare(&equal, &equal), Ordering::Equal);
            for place in 0..equal.len() {
                for byte in [0, 0x7f, 0x80, 0xff] {
                    let mut other = equal.clone();
                    other[place] = byte;
                    // What comes after it counts for nothing.
                    other[place + 1..].reverse();
                    let expected = equal.iter().cmp(&other);
                    assert_eq!(compare(&equal, &other), expected, "{length} {place}");
                    assert_eq!(compare(&other, &equal), expected.reverse());
                }
            }
        }
    }
}
