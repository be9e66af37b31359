//! [`bursar::body::json`]: what serde_json reads as an object, the scanner reads likewise, in any chunking.

use bursar::body::json::{Field, Key, Malformed, PatternKind, Repeats, Scanner, Shape, text};
use serde_json::Value;

use super::input::Input;
use super::tree::Tree;
use super::wires::{endpoint, path};

/// All that a scanner tells of a body: its values, the closing brace, the flags, and whether it is over.
type Scanned = Result<(Vec<Option<Field>>, Option<u64>, u32, u64), Malformed>;

pub fn run(data: &[u8]) {
    let Some(input) = Input::read(data) else {
        return;
    };
    let wire = endpoint(path(input.choice).as_bytes()).unwrap().wire;
    let (shape, repeats) = match (input.flag(0), input.flag(1)) {
        (false, _) => (wire.request(), Repeats::Refuse),
        (true, false) => (wire.response(), Repeats::TakeLast),
        (true, true) => (wire.events(), Repeats::TakeLast),
    };
    let whole = scan(shape, repeats, &[input.bytes]);
    for chunks in input.chunkings(input.bytes) {
        assert_eq!(scan(shape, repeats, &chunks), whole);
    }
    if let Ok((fields, ..)) = &whole {
        for (field, key) in fields.iter().zip(shape.keys) {
            let kept = field.as_ref().map_or(0, |field| field.raw.len());
            assert!(kept <= key.limit);
        }
    }
    if repeats == Repeats::Refuse
        && let Some(Tree::Object(entries)) = Tree::read(input.bytes)
    {
        check(shape, &entries, input.bytes, whole);
    }
}

fn scan(shape: Shape, repeats: Repeats, chunks: &[&[u8]]) -> Scanned {
    let mut scanner = Scanner::new(shape, repeats);
    for chunk in chunks {
        scanner.feed(chunk)?;
    }
    let fields = (0..shape.keys.len()).map(|index| scanner.begun(index).cloned());
    Ok((
        fields.collect(),
        scanner.closing_brace(),
        scanner.matched(),
        scanner.offset(),
    ))
}

/// The body is a valid object.
fn check(shape: Shape, entries: &[(String, Tree)], bytes: &[u8], scanned: Scanned) {
    let keys: Vec<&Key> = shape.keys.iter().collect();
    if is_ambiguous(entries, &keys, 0) {
        assert_eq!(scanned, Err(Malformed::AmbiguousKey));
        return;
    }
    let (fields, end, matched, offset) = scanned.unwrap();
    assert_eq!(offset, bytes.len() as u64);
    assert_eq!(end.map(|end| bytes[end as usize]), Some(b'}'));
    for (key, field) in shape.keys.iter().zip(&fields) {
        let expected = find(entries, key.path);
        assert_eq!(field.is_some(), expected.is_some(), "{key:?}");
        if let (Some(field), Some(expected)) = (field, expected) {
            check_field(key, field, expected, entries, bytes);
        }
    }
    let flags = shape.patterns.iter().fold(0, |flags, pattern| {
        let mut under = entries.iter().filter(|(name, _)| name == pattern.under);
        let is_there = under.any(|(_, value)| has(value, pattern.kind));
        flags | if is_there { pattern.flags } else { 0 }
    });
    assert_eq!(matched, flags);
}

fn check_field(
    key: &Key,
    field: &Field,
    expected: &Tree,
    entries: &[(String, Tree)],
    bytes: &[u8],
) {
    let (start, end) = (field.start as usize, field.end.unwrap() as usize);
    let raw = &bytes[start..end];
    assert_eq!(field.overlong, raw.len() > key.limit);
    assert_eq!(field.raw, raw[..raw.len().min(key.limit)]);
    if let Tree::List(list) = expected {
        let commas = list.len().saturating_sub(1) as u64;
        assert_eq!(field.commas, if key.counts_commas { commas } else { 0 });
    }
    if !field.overlong {
        let expected = match expected {
            Tree::Leaf(Value::String(text)) => Some(text.clone()),
            _ => None,
        };
        assert_eq!(text(field), expected);
    }
    // It is this very value that stands there: another in its place changes it and no other.
    let changed = [&bytes[..start], b"7777777", &bytes[end..]].concat();
    let mut wanted = entries.to_vec();
    replace(&mut wanted, key.path, &Tree::Leaf(7_777_777.into()));
    assert_eq!(Tree::read(&changed), Some(Tree::Object(wanted)));
}

fn is_name(name: &str, spelled: &str) -> bool {
    spelled.split('|').any(|known| known == name)
}

fn is_similar(name: &str, spelled: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        letter => letter.to_ascii_lowercase(),
    };
    let folded = |text: &str| text.chars().map(fold).collect::<String>();
    spelled
        .split('|')
        .any(|known| folded(known) == folded(name))
}

/// Whether a key that is looked for stands twice, or in other letter case, where it is looked for.
fn is_ambiguous(entries: &[(String, Tree)], keys: &[&Key], depth: usize) -> bool {
    keys.iter().any(|key| {
        let spelled = key.path[depth];
        let same = |(name, _): &&(String, Tree)| is_name(name, spelled);
        let similar = |(name, _): &(String, Tree)| is_similar(name, spelled);
        let count = entries.iter().filter(same).count();
        count > 1 || entries.iter().filter(|entry| similar(entry)).count() > count
    }) || entries.iter().any(|(name, value)| {
        let Tree::Object(inner) = value else {
            return false;
        };
        let goes_on = |key: &&&Key| depth + 1 < key.path.len() && is_name(name, key.path[depth]);
        let keys: Vec<&Key> = keys.iter().filter(goes_on).copied().collect();
        !keys.is_empty() && is_ambiguous(inner, &keys, depth + 1)
    })
}

fn find<'a>(entries: &'a [(String, Tree)], path: &[&str]) -> Option<&'a Tree> {
    let (first, rest) = path.split_first()?;
    let (_, value) = entries.iter().find(|(name, _)| is_name(name, first))?;
    match value {
        value if rest.is_empty() => Some(value),
        Tree::Object(entries) => find(entries, rest),
        _ => None,
    }
}

fn replace(entries: &mut [(String, Tree)], path: &[&str], with: &Tree) {
    let (first, rest) = path.split_first().unwrap();
    for (name, value) in entries {
        match value {
            _ if !is_name(name, first) => {}
            value if rest.is_empty() => *value = with.clone(),
            Tree::Object(entries) => replace(entries, rest, with),
            _ => {}
        }
    }
}

/// Whether the kind is anywhere in the value.
fn has(value: &Tree, kind: PatternKind) -> bool {
    match value {
        Tree::Leaf(_) => false,
        Tree::List(list) => list.iter().any(|entry| has(entry, kind)),
        Tree::Object(entries) => entries.iter().any(|(name, value)| {
            has(value, kind)
                || match kind {
                    PatternKind::Key(key) => name == key && says_something(value),
                    PatternKind::Type(kind) => name == "type" && *value == Tree::Leaf(kind.into()),
                    PatternKind::Role(kind) => name == "role" && *value == Tree::Leaf(kind.into()),
                }
        }),
    }
}

/// A list is judged by its first entry.
fn says_something(value: &Tree) -> bool {
    match value {
        Tree::Leaf(value) => !value.is_null(),
        Tree::List(list) => list.first().is_some_and(says_something),
        Tree::Object(_) => true,
    }
}
