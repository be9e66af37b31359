//! What an access log says of requests: the JSON lines that bursar's shipped formats write.

use std::collections::HashMap;

use bursar::base::units::Timestamp;
use serde_json::Value;

/// A request, as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub at: Timestamp,
    /// How long it took, in nanoseconds.
    pub took: u64,
    pub tenant: String,
    /// Empty for a tenant that has only limits of its own.
    pub plan: String,
    /// The model that was asked for.
    pub model: String,
    pub fate: Fate,
    /// What it used; of a request that was refused, what it would have used.
    pub usage: Used,
    /// What it cost, in millionths of a dollar.
    pub spend: u64,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Served,
    /// By a cheaper model than it asked for.
    Lowered,
    /// By bursar.
    Refused,
    /// The upstream refused it or failed.
    Failed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
}

/// Reads a log: its requests by time, and how many lines were left out since they are none of a metered request.
pub fn read(text: &str) -> (Vec<Entry>, usize) {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let all: Vec<Option<Entry>> = lines.map(entry).collect();
    let left_out = all.iter().filter(|entry| entry.is_none()).count();
    let mut entries: Vec<Entry> = all.into_iter().flatten().collect();
    entries.sort_by_key(|entry| entry.at);
    fill_in(&mut entries);
    (entries, left_out)
}

fn entry(line: &str) -> Option<Entry> {
    let line: Value = serde_json::from_str(line).ok()?;
    let said = match &line["bursar"] {
        Value::String(text) => serde_json::from_str(text).ok()?,
        said => said.clone(),
    };
    let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| said[key].as_u64().unwrap_or_default();
    let model = Some(text("requested_model")).filter(|model| !model.is_empty())?;
    let fate = match (said["settled_by"].as_str(), said["decision"].as_str()) {
        (None, _) => Fate::Refused,
        (Some("none"), _) => Fate::Failed,
        (Some(_), Some("downgrade")) => Fate::Lowered,
        (Some(_), _) => Fate::Served,
    };
    Some(Entry {
        at: Timestamp::parse_rfc_3339(line["time"].as_str()?)?,
        took: line["duration_ms"].as_u64().unwrap_or_default() * 1_000_000,
        tenant: text("tenant"),
        plan: text("plan"),
        model,
        fate,
        usage: Used {
            input: number("input_tokens"),
            cached: number("cached_tokens"),
            output: number("output_tokens"),
        },
        spend: number("spend"),
    })
}

/// What a request that was refused would have used, the log does not know: it is taken for the mean of those that its tenant was served
/// when it asked for the same model, or else of all.
fn fill_in(entries: &mut [Entry]) {
    let mut sums: HashMap<(&str, &str), (Used, u64, u64)> = HashMap::new();
    let mut keyed = Vec::new();
    for entry in entries.iter() {
        let is_whole = matches!(entry.fate, Fate::Served | Fate::Lowered);
        for key in [(entry.tenant.as_str(), entry.model.as_str()), ("", "")] {
            let (sum, took, count) = sums.entry(key).or_default();
            if is_whole {
                sum.input += entry.usage.input;
                sum.cached += entry.usage.cached;
                sum.output += entry.usage.output;
                *took += entry.took;
                *count += 1;
            }
        }
    }
    for entry in entries.iter() {
        let own = sums[&(entry.tenant.as_str(), entry.model.as_str())];
        let (sum, took, count) = if own.2 > 0 { own } else { sums[&("", "")] };
        let mean = |sum: u64| sum.checked_div(count).unwrap_or_default();
        keyed.push((
            Used {
                input: mean(sum.input),
                cached: mean(sum.cached),
                output: mean(sum.output),
            },
            mean(took),
        ));
    }
    for (entry, (usage, took)) in entries.iter_mut().zip(keyed) {
        if entry.fate == Fate::Refused {
            entry.usage = usage;
            entry.took = took;
        }
    }
}
