//! What two modules made of one exchange, side by side.

use std::collections::BTreeMap;

use crate::proxy::Outcome;

/// The first thing in which they differ.
pub struct Difference {
    pub kind: String,
    pub before: String,
    pub after: String,
}

fn difference(
    kind: &str,
    before: impl Into<String>,
    after: impl Into<String>,
) -> Option<Difference> {
    let (before, after) = (before.into(), after.into());
    (before != after).then(|| Difference {
        kind: kind.to_owned(),
        before,
        after,
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Headers by name: their order says nothing.
fn headers(list: &[(String, String)]) -> String {
    let mut lines: Vec<String> = list
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    lines.sort();
    lines.join(" | ")
}

fn reply(reply: Option<&[Vec<u8>; 3]>) -> String {
    reply.map_or_else(
        || "none".to_owned(),
        |parts| {
            parts
                .iter()
                .map(|part| text(part))
                .collect::<Vec<_>>()
                .join(" | ")
        },
    )
}

/// Fields of the access log that both know; one that is new is no difference of behaviour.
fn fields(outcome: &Outcome, known: &Outcome) -> String {
    let all = outcome.fields.iter();
    let sorted: BTreeMap<_, _> = all
        .filter(|(name, _)| known.fields.contains_key(*name))
        .collect();
    format!("{sorted:?}")
}

pub fn outcomes(before: &Outcome, after: &Outcome) -> Option<Difference> {
    difference(
        "status",
        before.status.to_string(),
        after.status.to_string(),
    )
    .or_else(|| {
        difference(
            "reply",
            reply(before.reply.as_ref()),
            reply(after.reply.as_ref()),
        )
    })
    .or_else(|| {
        difference(
            "body upstream",
            text(&before.upstream),
            text(&after.upstream),
        )
    })
    .or_else(|| {
        difference(
            "headers upstream",
            headers(&before.upstream_headers),
            headers(&after.upstream_headers),
        )
    })
    .or_else(|| {
        difference(
            "body to the client",
            text(&before.client),
            text(&after.client),
        )
    })
    .or_else(|| {
        difference(
            "headers to the client",
            headers(&before.client_headers),
            headers(&after.client_headers),
        )
    })
    .or_else(|| difference("log fields", fields(before, before), fields(after, before)))
}

/// Metrics that both have counted; one that is new is no difference of behaviour.
pub fn metrics(
    before: &BTreeMap<Vec<u8>, u64>,
    after: &BTreeMap<Vec<u8>, u64>,
) -> Option<Difference> {
    before.iter().find_map(|(name, value)| {
        let other = after.get(name).copied();
        let shown = other.map_or_else(|| "none".to_owned(), |other| other.to_string());
        let kind = text(name).split('.').next().unwrap_or_default().to_owned();
        (other != Some(*value)).then(|| Difference {
            kind: format!("metric {kind}"),
            before: format!("{} {value}", text(name)),
            after: shown,
        })
    })
}
