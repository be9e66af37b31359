use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Blocks of bytes from a small alphabet, the same in each run.
fn blocks(alphabet: &[u8]) -> impl Iterator<Item = Block> {
    let mut state = 1_u64;
    std::iter::repeat_with(move || {
        std::array::from_fn(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            alphabet[usize::try_from(state >> 33).unwrap() % alphabet.len()]
        })
    })
}

fn set(block: &Block, is_in: impl Fn(u8) -> bool) -> u64 {
    (0..64).fold(0, |set, at| set | u64::from(is_in(block[at])) << at)
}

#[test]
fn bytes_are_found_whatever_stands_beside_them() {
    let all: Vec<u8> = (0..=255).collect();
    for alphabet in [
        &all[..],
        b"{[\"\\}]",
        b"\x5a\x5b\x5c\xdb\x7b",
        &[0, 1, 0x80, 0x81, 0xff],
    ] {
        for block in blocks(alphabet).take(200) {
            for byte in [0, 1, b'"', b'{', 0x80, 0xff] {
                assert_eq!(equal(&block, byte), set(&block, |other| other == byte));
            }
            assert_eq!(
                equal_folded(&block, b'{'),
                set(&block, |other| other == b'{' || other == b'[')
            );
        }
    }
}

#[test]
fn strings_are_found_as_byte_by_byte() {
    for alphabet in [&b"\"\\x"[..], b"\\\\\\\\\\\"", b"\"xxxxxxxxxxxxxxxx", b"\\"] {
        let mut fast = Strings::default();
        for (number, block) in blocks(alphabet).take(500).enumerate() {
            let length = if number % 3 == 0 { number % 65 } else { 64 };
            let mut filled = [b' '; 64];
            filled[..length].copy_from_slice(&block[..length]);
            let mut slow = fast;
            let quotes = equal(&filled, b'"');
            let backslashes = equal(&filled, b'\\');
            let expected = slow.read_one_by_one(fast, quotes, backslashes, length);
            let read = fast.read(&filled, length);
            assert_eq!(
                (read.quotes, read.inside),
                (expected.quotes, expected.inside)
            );
            assert_eq!(fast, slow);
        }
    }
}

#[test]
fn a_string_ends_where_it_does_byte_by_byte() {
    for alphabet in [
        &b"\\\"xxxxxxxxxxxxxxxxxxxxxx"[..],
        b"\\\\\\\"x",
        b"\\x",
        b"x",
    ] {
        for (number, block) in blocks(alphabet).take(500).enumerate() {
            let text = [[b'x'; 64].as_slice(), &[b'\\'; 63], &block, &block].concat();
            let text = &text[number % 150..];
            let mut is_escaped = false;
            let end = text.iter().position(|&byte| {
                let is_read = !std::mem::take(&mut is_escaped);
                is_escaped = is_read && byte == b'\\';
                is_read && byte == b'"'
            });
            for split in [0, 1, 15, 16, 17, 63, 64, 65, text.len()] {
                let mut strings = Strings {
                    is_inside: true,
                    is_escaped: false,
                };
                let (head, tail) = text.split_at(split.min(text.len()));
                let (mut taken, _) = strings.end(head);
                if strings.is_inside {
                    taken += strings.end(tail).0;
                }
                assert_eq!(strings.is_inside, end.is_none());
                assert_eq!(strings.is_escaped, is_escaped);
                assert_eq!(taken, end.map_or(text.len(), |end| end + 1));
            }
        }
    }
}

#[test]
fn a_plain_text_ends_at_its_quote() {
    for length in 0..64 {
        let text = "x".repeat(length);
        for (rest, is_plain) in [("\"", true), ("\\\"", false), ("é\"", false), ("", false)] {
            for behind in ["", "x", "\"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\""] {
                let all = format!("{text}{rest}{behind}");
                let found = plain(all.as_bytes());
                let is_ended = is_plain || rest.is_empty() && behind.starts_with('"');
                assert_eq!(found, is_ended.then_some(length), "{all}");
            }
        }
    }
    assert_eq!(plain(format!("{}\"", "x".repeat(80)).as_bytes()), None);
}

#[test]
fn the_bits_of_a_set_come_in_their_order() {
    assert_eq!(bits(0).next(), None);
    assert_eq!(bits(1 << 63 | 5).collect::<Vec<_>>(), [0, 2, 63]);
    assert_eq!(before(Some(0)), 0);
    assert_eq!(before(Some(63)), u64::MAX >> 1);
}
