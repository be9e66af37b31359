//! The scanner, by example.

use super::names::Folded;
use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const KEYS: &[Key] = &[
    Key::new(&["model"], 64),
    Key::new(&["n"], 8),
    Key::new(&["config|cfg", "max|most"], 8),
];
const SHAPE: Shape = Shape::new(
    KEYS,
    &[
        Pattern {
            under: "messages",
            kind: PatternKind::Type("image"),
            flags: 1,
        },
        Pattern {
            under: "messages",
            kind: PatternKind::Key("inline"),
            flags: 2,
        },
    ],
);

fn scan(chunks: &[&[u8]]) -> Result<Scanner, Malformed> {
    let mut scanner = Scanner::new(SHAPE, Repeats::Refuse);
    for chunk in chunks {
        scanner.feed(chunk)?;
    }
    scanner
        .closing_brace()
        .map(|_| scanner)
        .ok_or(Malformed::Truncated)
}

fn model(body: &str) -> Result<Option<String>, Malformed> {
    scan(&[body.as_bytes()]).map(|scanner| scanner.value(0).and_then(text))
}

// `model` may come first or last, nested, escaped, or as text within a string.
#[test]
fn model_is_found_wherever_it_stands_and_only_at_the_top() {
    let found = Ok(Some("gpt-4o".to_owned()));
    assert_eq!(model(r#"{"model":"gpt-4o","x":1}"#), found);
    assert_eq!(
        model(r#" { "x" : [ {"model":"no"} ] , "model" : "gpt-4o" } "#),
        found
    );
    assert_eq!(
        model(r#"{"x":"\"model\":\"no\"","y":{"a":"}]{["},"model":"gpt-4o"}"#),
        found
    );
    assert_eq!(model(r#"{"mod\u0065l":"gpt\u002d4o"}"#), found);
    assert_eq!(model(r#"{"x":{"model":"no"},"y":"model"}"#), Ok(None));
}

#[test]
fn a_key_that_matters_must_stand_once_and_as_spelled() {
    let twice = Err(Malformed::AmbiguousKey);
    assert_eq!(model(r#"{"model":"a","model":"b"}"#), twice);
    assert_eq!(model(r#"{"model":"a","mod\u0065l":"b"}"#), twice);
    assert_eq!(model(r#"{"Model":"a"}"#), twice);
    let folded = Folded::of("max_to\u{212a}en\u{17f}".as_bytes()).unwrap();
    assert_eq!(folded.as_bytes(), b"max_tokens");
    assert_eq!(model("{\"config\":{\"mo\u{17f}t\":1}}"), twice);
    assert_eq!(model(r#"{"config":{"mo\u017ft":1}}"#), twice);
    // These names differ from every name that is looked for, although they have the length of one, or of a spelling that folds to one.
    for other in [
        "modeł",
        "mo\u{17f}t",
        "\u{212a}",
        "é",
        "\u{212a}\u{212a}\u{17f}é",
    ] {
        assert_eq!(model(&format!("{{\"{other}\":1}}")), Ok(None), "{other}");
    }
    assert_eq!(model(r#"{"n":1,"x":2,"x":3,"n":1}"#), twice);
}

// Bodies may be deeply nested, huge or cut off, or may arrive byte by byte.
#[test]
fn what_is_no_object_is_told_apart() {
    for (body, fault) in [
        ("", Malformed::Truncated),
        ("[]", Malformed::NotAnObject),
        ("\u{feff}", Malformed::Truncated),
        (" \u{feff}{}", Malformed::NotAnObject),
        ("{", Malformed::Truncated),
        (r#"{"a":"\"#, Malformed::Truncated),
        (r#"{"a":1"#, Malformed::Truncated),
        (r#"{"a"}"#, Malformed::Syntax),
        (r#"{"a":}"#, Malformed::Syntax),
        (r#"{"a":1,}"#, Malformed::Syntax),
        (r#"{"a":1 2}"#, Malformed::Syntax),
        (r#"{"a":1"b":2}"#, Malformed::Syntax),
        ("{} {}", Malformed::Syntax),
        ("{}x", Malformed::Syntax),
        (r#"{"\x":1}"#, Malformed::Syntax),
    ] {
        assert_eq!(scan(&[body.as_bytes()]).err(), Some(fault), "{body}");
    }
}

#[test]
fn any_chunking_finds_the_same() {
    let body = r#" {"a":[1,{"b":"\\"}],"mod\u0065l": "g\"pt" , "n":12,"z":"é}"} "#.as_bytes();
    let whole = scan(&[body]).unwrap();
    assert_eq!(whole.value(0).unwrap().raw, br#""g\"pt""#);
    assert_eq!(whole.value(1).unwrap().raw, b"12");
    for split in 0..=body.len() {
        let (head, tail) = body.split_at(split);
        let parts = scan(&[head, tail]).unwrap();
        assert_eq!(parts.fields, whole.fields, "split at {split}");
        assert_eq!(parts.closing_brace(), whole.closing_brace());
    }
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(scan(&bytes).unwrap().fields, whole.fields);
}

#[test]
fn offsets_are_those_of_the_value() {
    let body = br#"{"x":"y", "model" : "gpt" }"#;
    let scanner = scan(&[body]).unwrap();
    let field = scanner.value(0).unwrap();
    let range = usize::try_from(field.start).unwrap()..usize::try_from(field.end.unwrap()).unwrap();
    assert_eq!(&body[range], br#""gpt""#);
    assert_eq!(scanner.closing_brace(), Some(26));
}

#[test]
fn an_overlong_value_is_said_to_be_so_and_not_kept() {
    let body = format!(r#"{{"model":"{}","n":[1,2,3,4,5,6]}}"#, "x".repeat(64));
    let scanner = scan(&[body.as_bytes()]).unwrap();
    for index in [0, 1] {
        let field = scanner.value(index).unwrap();
        assert!(field.overlong && field.end.is_some());
        assert_eq!(field.raw.len(), KEYS[index].limit);
    }
}

#[test]
fn a_key_in_an_object_is_found_in_any_of_its_spellings_and_in_no_other_place() {
    let max = |body: &str| {
        scan(&[body.as_bytes()]).map(|scanner| {
            let raw = scanner.value(2).map(|field| field.raw.clone());
            raw.map(|raw| String::from_utf8(raw).unwrap())
        })
    };
    let found = Ok(Some("5".to_owned()));
    assert_eq!(max(r#"{"config":{"a":{"max":1},"max":5}}"#), found);
    assert_eq!(max(r#"{"cfg" : { "most" : 5 } }"#), found);
    assert_eq!(
        max(r#"{"x":{"config":{"max":5}},"max":5,"config":[{"max":5}]}"#),
        Ok(None)
    );
    assert_eq!(max(r#"{"config":{},"x":{"max":5}}"#), Ok(None));
    assert_eq!(max(r#"{"config":null}"#), Ok(None));
    for twice in [
        r#"{"config":{"max":1},"cfg":{}}"#,
        r#"{"config":{"max":1,"most":2}}"#,
        r#"{"config":{"Max":1}}"#,
        r#"{"Config":{"x":1}}"#,
    ] {
        assert_eq!(max(twice), Err(Malformed::AmbiguousKey), "{twice}");
    }
    assert_eq!(max(r#"{"config":{"max":1"#), Err(Malformed::Truncated));
    assert_eq!(max(r#"{"config":{"max":1]}"#), Err(Malformed::Syntax));
}

// RFC 8259, 8.1: a parser may ignore a byte order mark. Nothing else of its bytes is ignored.
#[test]
fn a_byte_order_mark_may_precede_the_object_whole_and_in_order() {
    let body = b"\xef\xbb\xbf {\"model\":\"m\"}";
    for split in 0..body.len() {
        let (head, tail) = body.split_at(split);
        assert!(scan(&[head, tail]).is_ok(), "{split}");
    }
    for begin in [
        &b"\xef"[..],
        b"\xef\xbb",
        b"\xbb\xbf",
        b"\xbf",
        b"\xef\xbf\xbb",
        b"\xef \xbf",
        b" \xef\xbb\xbf",
        b"\xef\xbb\xbf\xef\xbb\xbf",
    ] {
        let wrong = [begin, b"{}"].concat();
        for split in 0..wrong.len() {
            let (head, tail) = wrong.split_at(split);
            let fault = scan(&[head, tail]).err();
            assert_eq!(fault, Some(Malformed::NotAnObject), "{begin:?} {split}");
        }
    }
}

#[test]
fn marks_are_noticed_anywhere_in_their_value_and_never_in_a_text() {
    for (body, image, inline) in [
        (
            r#"{"messages":[{"content":[{"type":"image","x":{"inline":1}}]}]}"#,
            true,
            true,
        ),
        (
            r#"{"messages":[{"ty\u0070e" : "im\u0061ge"}]}"#,
            true,
            false,
        ),
        (
            r#"{"messages":[{"type":"text","text":"image"},"inline",{"a":"type","b":"image"}]}"#,
            false,
            false,
        ),
        (
            r#"{"messages":[{"type":{"a":"image"}},{"type":["image"]},{"type":"images"}]}"#,
            false,
            false,
        ),
        (
            r#"{"messages":["{\"type\":\"image\",\"inline\":1}"]}"#,
            false,
            false,
        ),
        (
            r#"{"tools":[{"type":"image","inline":1}],"messages":[]}"#,
            false,
            false,
        ),
        // SDKs and servers also write keys whose value is `null` or an empty list: these count as absent.
        (
            r#"{"messages":[{"inline" : null,"b":[{"inline":[ ]}]}]}"#,
            false,
            false,
        ),
        (r#"{"messages":[{"inline": [ {} ]}]}"#, false, true),
        (r#"{"messages":[{"inline":{}}]}"#, false, true),
        (r#"{"messages":[{"inline": "" }]}"#, false, true),
    ] {
        for split in 0..=body.len() {
            let (head, tail) = body.as_bytes().split_at(split);
            let scanner = scan(&[head, tail]).unwrap();
            let expected = u32::from(image) | u32::from(inline) << 1;
            assert_eq!(scanner.matched(), expected, "{body} split at {split}");
        }
    }
}

#[test]
fn nothing_depends_on_where_a_block_begins() {
    for (text, matched) in [
        (r#"{"type":"image"}"#, 1),
        (r#"{"ty\u0070e" : "im\u0061ge"}"#, 1),
        (r#"{"type":"text","inline" : [ {"a":{}} ]}"#, 2),
        (r#"{"type":7,"image":"inline"}"#, 0),
        (
            r#"["\\","\"type\":\"image\"",{"inline":null},"[{\\\"","image"]"#,
            0,
        ),
    ] {
        for length in (0..130).step_by(3) {
            let pad = "x".repeat(length);
            let body = format!(
                r#"{{"pad":"{pad}","messages":[{{"{pad}":"\\{pad}"}},{text},[]],"type":"image","inline":1,"model":"m"}}"#
            );
            for split in [0, body.len() - 60, body.len() - 40, body.len()] {
                for size in [1, 63, 64, 200] {
                    let (head, tail) = body.as_bytes().split_at(split);
                    let chunks: Vec<&[u8]> = head.chunks(size).chain([tail]).collect();
                    let scanner = scan(&chunks).unwrap();
                    assert_eq!(scanner.matched(), matched, "{body}");
                    assert_eq!(scanner.value(0).unwrap().raw, br#""m""#, "{body}");
                }
            }
        }
    }
}

#[test]
fn a_word_is_found_or_may_be_hidden() {
    let has = |json: &str| may_have(json.as_bytes(), &["model", "x.y"], |rest| rest != b":0}");
    for length in 0..130 {
        let pad = " ".repeat(length);
        assert!(has(&format!(r#"{{{pad}"model":1}}"#)));
        assert!(has(&format!(r#"{{{pad}"":"x.y"}}"#)));
        assert!(has(&format!(r#"{{{pad}"mod\u0065l":1}}"#)));
        assert!(!has(&format!(r#"{{{pad}"model":0}}"#)));
        assert!(!has(&format!(r#"{{{pad}"models":"x.\"model\"models"}}"#)));
        assert!(!has(&format!(r#"{{{pad}"model"#)));
    }
}

#[test]
fn the_end_of_the_object_is_told() {
    let mut scanner = Scanner::new(SHAPE, Repeats::TakeLast);
    assert_eq!(scanner.feed_object(br#"{"n":"#), Ok(5));
    assert_eq!(scanner.feed_object(br#"{}} , {"n":1}"#), Ok(3));
    assert_eq!(scanner.feed_object(b"x"), Ok(0));
    assert!(scanner.closing_brace().is_some());
}

#[test]
fn deep_nesting_costs_nothing() {
    let body = format!(
        r#"{{"x":{}{},"model":"m"}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(model(&body), Ok(Some("m".to_owned())));
}

#[test]
fn in_a_response_the_last_of_two_counts() {
    let mut scanner = Scanner::new(SHAPE, Repeats::TakeLast);
    scanner
        .feed(br#"{"model":"a","Model":"b","model":"c"}"#)
        .unwrap();
    assert_eq!(scanner.value(0).and_then(text), Some("c".to_owned()));
}

// If a key occurs again, the value that was found before is lost, whatever the chunks.
#[test]
fn it_is_news_that_a_value_begins_again_though_nothing_good_comes_of_it() {
    for body in [
        r#"{"model":"a","model":_"}"#,
        r#"{"cfg":{"most":1,"most":]}}"#,
    ] {
        for split in 0..body.len() {
            let mut scanner = Scanner::new(SHAPE, Repeats::TakeLast);
            let mut told = Vec::new();
            let (head, tail) = body.as_bytes().split_at(split);
            let fed = [head, tail].map(|chunk| {
                let fed = scanner.feed(chunk);
                if scanner.take_news() {
                    told = scanner.fields.clone();
                }
                fed
            });
            assert!(fed.contains(&Err(Malformed::Syntax)));
            assert_eq!(told, scanner.fields, "{body} {split}");
        }
    }
}

#[test]
fn whatever_changes_is_news_and_a_part_of_a_text_is_none() {
    let text = "x".repeat(100);
    let body = format!(
        r#"{{"messages":["{text}",{{"type":"image"}}],"model":"{text}","n":[1,[2,3],4,5,6,7],"cfg":{{"most":1}},"x":{{}},"y":"{text}"}}"#
    );
    let told = |scanner: &Scanner| {
        let (end, matched) = (scanner.closing_brace(), scanner.matched());
        (scanner.fields.clone(), end, matched, scanner.is_empty())
    };
    for size in [1, 7, 30] {
        let mut scanner = Scanner::new(SHAPE, Repeats::Refuse);
        assert!(scanner.take_news());
        let mut quiet = 0;
        for chunk in body.as_bytes().chunks(size) {
            let before = told(&scanner);
            scanner.feed(chunk).unwrap();
            let has_news = scanner.take_news();
            assert!(has_news || told(&scanner) == before);
            quiet += if has_news { 0 } else { chunk.len() };
        }
        assert!(quiet > 120, "{quiet}");
    }
}
