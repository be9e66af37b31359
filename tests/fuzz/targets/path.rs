//! [`bursar::provider`]'s paths: a model that is exchanged is read back, and nothing else of the path changes.

use bursar::provider::Endpoint;

use super::input::Input;
use super::wires::endpoint;

/// Names that tiers may have, the awkward ones among them.
const MODELS: &[&str] = &[
    "v.small-1",
    "gpt-4.1-mini",
    "a:b",
    "a~b@001",
    "a%b?c#d&e=f+g",
    "model",
    "-",
];

pub fn run(data: &[u8]) {
    let Some(input) = Input::read(data) else {
        return;
    };
    let path = input.bytes;
    let Some(found) = endpoint(path) else { return };
    same_in_another_spelling(path, &found);
    let Some(model) = &found.model else { return };
    let name = MODELS[input.choice % MODELS.len()];
    let exchanged = model.path_for(name);
    let again = endpoint(exchanged.as_bytes()).unwrap();
    assert_eq!(kind(&again), kind(&found));
    assert_eq!(again.model.as_ref().unwrap().name, name);
    assert_eq!(again.model.unwrap().path_for(name), exchanged);
    all_else_stays(path, &exchanged, &model.path_for(""));
}

/// All that an endpoint says but for the model's name.
fn kind(endpoint: &Endpoint) -> (String, Option<bool>, bool) {
    let is_own = endpoint.model.as_ref().map(|model| model.is_own);
    (format!("{:?}", endpoint.wire), is_own, endpoint.is_signed)
}

/// The exchanged path has one stretch of the path replaced; `without` has it left out.
fn all_else_stays(path: &[u8], exchanged: &str, without: &str) {
    let path = as_text(path);
    let (exchanged, without) = (exchanged.as_bytes(), without.as_bytes());
    let is_there = (0..=without.len()).any(|at| {
        let (head, tail) = without.split_at(at);
        [path.as_slice(), exchanged]
            .iter()
            .all(|path| path.starts_with(head) && path[head.len()..].ends_with(tail))
    });
    assert!(is_there);
}

/// Bytes that are no UTF-8 are escaped.
fn as_text(path: &[u8]) -> Vec<u8> {
    let escaped = |byte: &u8| format!("%{byte:02X}").into_bytes();
    let chunks = path.utf8_chunks();
    let chunks = chunks.map(|chunk| {
        let rest: Vec<u8> = chunk.invalid().iter().flat_map(escaped).collect();
        [chunk.valid().as_bytes(), &rest].concat()
    });
    chunks.collect::<Vec<_>>().concat()
}

/// Any letter may be escaped, and letter case is of no matter but in the model's name.
fn same_in_another_spelling(path: &[u8], found: &Endpoint) {
    if path.contains(&b'%') {
        return;
    }
    let end = path
        .iter()
        .position(|byte| b"?#".contains(byte))
        .unwrap_or(path.len());
    let (names, query) = path.split_at(end);
    let escaped: String = names.iter().map(|byte| format!("%{byte:02x}")).collect();
    let again = endpoint(&[escaped.as_bytes(), query].concat()).unwrap();
    let name = |endpoint: &Endpoint| endpoint.model.as_ref().map(|model| model.name.clone());
    assert_eq!(name(&again), name(found));
    assert_eq!(format!("{:?}", again.wire), format!("{:?}", found.wire));
    let again = endpoint(&[&names.to_ascii_uppercase(), query].concat()).unwrap();
    assert_eq!(kind(&again), kind(found));
}
