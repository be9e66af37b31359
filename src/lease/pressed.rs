//! Which upstreams refuse, as the proxies that share a store report it to each other (see [`crate::tier::pressure`]).
//!
//! The store keeps one hash for a domain: for each model that is sent with the proxies' own credentials, when its upstream refused, and
//! until when it is left alone; or since when it serves again. A report contains what changed, in milliseconds before and after now, so
//! that clocks need not agree. Of two reports about a model the one about the later time counts, whichever comes first, so none of them
//! undoes what happened after it. The answer lists all models whose upstream refuses. A report is lost without harm: the next
//! refusal, or the next success, causes another one.

use crate::lease::line::{NoAnswer, natural, no_answer};
use crate::lease::resp::{Reply, push_command};

/// At most so many models are reported at a time, and kept by the store.
pub const MOST: usize = 64;

/// What is known of one model's upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressed {
    /// A hash of the model that is sent.
    pub model: u64,
    /// So many milliseconds ago the upstream refused; or it was sent a request that it served.
    pub ago: u64,
    /// For so many milliseconds the upstream is left alone. In a report, 0 means that the upstream serves again; in an answer, that the
    /// wait is over.
    pub wait: u64,
}

/// Appends the command that reports this news.
pub(super) fn push(body: &mut Vec<u8>, [verb, code]: [&str; 2], key: &str, news: &[Pressed]) {
    let texts: Vec<[String; 3]> = news
        .iter()
        .take(MOST)
        .map(|one| {
            [
                format!("{:016x}", one.model),
                one.ago.to_string(),
                one.wait.to_string(),
            ]
        })
        .collect();
    let words = [verb, code, "1", key].into_iter();
    let words = words.chain(texts.iter().flatten().map(String::as_str));
    let words: Vec<&[u8]> = words.map(str::as_bytes).collect();
    push_command(body, &words);
}

pub(super) fn read(reply: &Reply<'_>) -> Result<Vec<Pressed>, NoAnswer> {
    let Reply::Array(Some(fields)) = reply else {
        return Err(no_answer(reply));
    };
    let (entries, []) = fields.as_chunks::<3>() else {
        return Err(NoAnswer::Strange);
    };
    let entries = entries.iter().map(entry);
    let entries: Option<Vec<_>> = entries.collect();
    entries.ok_or(NoAnswer::Strange)
}

fn entry([model, ago, wait]: &[Reply<'_>; 3]) -> Option<Pressed> {
    let Reply::Bulk(Some(model)) = model else {
        return None;
    };
    let model = str::from_utf8(model).ok()?;
    Some(Pressed {
        model: u64::from_str_radix(model, 16).ok()?,
        ago: natural(ago)?,
        wait: natural(wait)?,
    })
}
