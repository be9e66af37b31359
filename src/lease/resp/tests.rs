use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn written(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_command(&mut bytes, words);
    bytes
}

#[test]
fn a_command_is_an_array_of_texts() {
    assert_eq!(written(&[b"QUIT"]), b"*1\r\n$4\r\nQUIT\r\n");
    assert_eq!(
        written(&[b"AUTH", "ü\r\n".as_bytes(), b""]),
        "*3\r\n$4\r\nAUTH\r\n$4\r\nü\r\n\r\n$0\r\n\r\n".as_bytes()
    );
}

/// A body with a reply of each kind.
const BODY: &[u8] = b"+OK\r\n*3\r\n:0\r\n:-12\r\n$3\r\na\r\n\r\n-NOSCRIPT No matching script.\r\n$-1\r\n*-1\r\n*0\r\n$0\r\n\r\n";

#[test]
fn each_kind_of_reply_is_read() {
    let read = replies(BODY, 7).unwrap();
    let list = vec![
        Reply::Integer(0),
        Reply::Integer(-12),
        Reply::Bulk(Some(b"a\r\n")),
    ];
    assert_eq!(
        read,
        [
            Reply::Simple(b"OK"),
            Reply::Array(Some(list)),
            Reply::Error(Refusal::NoScript, b"NOSCRIPT No matching script."),
            Reply::Bulk(None),
            Reply::Array(None),
            Reply::Array(Some(vec![])),
            Reply::Bulk(Some(b"")),
        ]
    );
}

// If the store ends, or the proxy gives up, in the middle of an answer, the status is still 200.
#[test]
fn a_body_that_is_cut_anywhere_is_no_answer() {
    for end in 0..BODY.len() {
        assert_eq!(replies(&BODY[..end], 7), Err(Malformed::Cut), "{end}");
    }
}

#[test]
fn more_than_was_asked_for_is_no_answer() {
    assert_eq!(replies(BODY, 6), Err(Malformed::Extra));
    assert_eq!(replies(b"+OK\r\n\r\n", 1), Err(Malformed::Extra));
    assert_eq!(replies(b"+OK\r\n", 0), Err(Malformed::Extra));
    assert_eq!(replies(b"", 0), Ok(vec![]));
}

#[test]
fn what_no_reply_looks_like_is_no_answer() {
    let wrong: [&[u8]; 22] = [
        b"upstream connect error or disconnect/reset before headers. reset reason: connection failure",
        b"no healthy upstream",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"<html>\r\n",
        b"\r\n",
        b":\r\n",
        b":+1\r\n",
        b":01\r\n",
        b":-0\r\n",
        b": 1\r\n",
        b":1.5\r\n",
        b":9223372036854775808\r\n",
        b"$-2\r\n",
        b"$x\r\n",
        b"$1\r\nabc\r\n",
        b"+a\nb\r\n",
        b"+a\n",
        b"+a\rb\r\n",
        b"*-2\r\n",
        b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        b"_\r\n",
        b"%1\r\n+a\r\n:1\r\n",
    ];
    for body in wrong {
        assert_eq!(
            replies(body, 1),
            Err(Malformed::NoReply),
            "{:?}",
            String::from_utf8_lossy(body)
        );
    }
}

// No memory is allocated for a length that the store merely announces.
#[test]
fn huge_lengths_cost_nothing() {
    for body in [
        &b"*9223372036854775807\r\n:1\r\n"[..],
        b"$9223372036854775807\r\nab\r\n",
        b"*4294967296\r\n",
    ] {
        assert_eq!(replies(body, 1), Err(Malformed::Cut));
    }
}

#[test]
fn refusals_are_told_apart_by_their_first_word() {
    let kinds = [
        (
            "NOSCRIPT No matching script. Please use EVAL.",
            Refusal::NoScript,
        ),
        (
            "READONLY You can't write against a read only replica.",
            Refusal::ReadOnly,
        ),
        (
            "OOM command not allowed when used memory > 'maxmemory'.",
            Refusal::OutOfMemory,
        ),
        ("NOAUTH Authentication required.", Refusal::NotAllowed),
        (
            "WRONGPASS invalid username-password pair or user is disabled.",
            Refusal::NotAllowed,
        ),
        ("NOPERM this user has no permissions", Refusal::NotAllowed),
        (
            "LOADING Redis is loading the dataset in memory",
            Refusal::NotNow,
        ),
        ("MOVED 3999 127.0.0.1:6381", Refusal::Elsewhere),
        ("ERR unknown command", Refusal::Other),
        ("NOSCRIPTS", Refusal::Other),
        ("", Refusal::Other),
    ];
    for (text, kind) in kinds {
        let body = format!("-{text}\r\n");
        assert_eq!(
            replies(body.as_bytes(), 1),
            Ok(vec![Reply::Error(kind, text.as_bytes())])
        );
    }
}
