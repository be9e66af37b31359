//! Reading and changing those values of a body that most APIs have in common.

use std::borrow::Cow;
use std::ops::Range;

use super::wire::{Fault, OutputLimits, Wire};
use crate::base::units::Tokens;
use crate::body::json::{Field, Key, Scanner, entries, members, quoted, string, text};
use crate::body::number::Number;
use crate::body::rewrite::Edit;
use crate::estimate::learn::PRIOR_ANSWER;

/// Longest number that is read, in bytes.
const NUMBER: usize = 32;

/// Longest model name, in bytes.
const MAX_MODEL: usize = 256;

/// A key with a short value: a number or a word.
pub(super) const fn key(path: &'static [&'static str]) -> Key {
    Key::new(path, NUMBER)
}

/// A key with a value of at most `limit` bytes.
pub(super) const fn long_key(path: &'static [&'static str], limit: usize) -> Key {
    Key::new(path, limit)
}

/// The key of the model's name. Every byte of the name may be escaped.
pub(super) const MODEL: Key = long_key(&["model"], 6 * MAX_MODEL + 2);

/// The longest sensible list of other models, in bytes.
const MAX_ALTERNATIVES: usize = 4 * 1_024;

/// Keys of lists of other models: OpenRouter's, LiteLLM's and Anthropic's (<https://openrouter.ai/docs/features/model-routing>,
/// <https://docs.litellm.ai/docs/proxy/reliability>, <https://platform.claude.com/docs/en/build-with-claude/refusals-and-fallback>, read
/// 2026-11-29); more of LiteLLM's router, which also reads them from an object in the body (<https://github.com/BerriAI/litellm>,
/// `async_function_with_fallbacks` in `router.py`, `route_llm_request.py`); that of Vercel's AI Gateway
/// (<https://vercel.com/docs/ai-gateway/models-and-providers/model-fallbacks>, both read 2026-11-30).
pub(super) const ALTERNATIVES: [Key; MOST_LISTS] = [
    long_key(&["models"], MAX_ALTERNATIVES),
    long_key(&["providerOptions", "gateway", "models"], MAX_ALTERNATIVES),
    long_key(&["fallbacks"], MAX_ALTERNATIVES),
    long_key(&["context_window_fallbacks"], MAX_ALTERNATIVES),
    long_key(&["content_policy_fallbacks"], MAX_ALTERNATIVES),
    long_key(&["router_settings_override", "fallbacks"], MAX_ALTERNATIVES),
    long_key(
        &["router_settings_override", "context_window_fallbacks"],
        MAX_ALTERNATIVES,
    ),
    long_key(
        &["router_settings_override", "content_policy_fallbacks"],
        MAX_ALTERNATIVES,
    ),
];
/// How many they are.
pub(super) const MOST_LISTS: usize = 8;
/// How many of them, the last ones, have another format than a list of names, the preferred one first; in these, `null` stands for no list.
pub const LISTS_OF_ENTRIES: usize = 6;

/// Keys by which LiteLLM's proxy sends something else than the body says: members that replace those of the body, parameters to leave out,
/// and models to call (<https://github.com/BerriAI/litellm/issues/31118>, `completion/drop_params.md` and `completion` in `main.py` there, read
/// 2026-11-30).
pub(super) const OVERRIDES: [Key; 3] = [
    key(&[
        "extra_body",
        "model|models|fallbacks|max_tokens|max_completion_tokens|max_output_tokens|n|best_of|stream|stream_options",
    ]),
    long_key(&["additional_drop_params"], 1_024),
    key(&["model_list"]),
];

/// A list of keys with [`OVERRIDES`] and [`ALTERNATIVES`] at its end.
macro_rules! with_alternatives {
    ($($key:expr),* $(,)?) => {{
        use $crate::provider::read::{ALTERNATIVES as MORE, OVERRIDES};
        [$($key,)* OVERRIDES[0], OVERRIDES[1], OVERRIDES[2], MORE[0], MORE[1], MORE[2], MORE[3], MORE[4], MORE[5], MORE[6], MORE[7]]
    }};
}
pub(super) use with_alternatives;

/// The keys of lists of other models in a request's shape. Not inlined, since five places call it.
#[inline(never)]
pub fn lists(wire: &dyn Wire, body: &Scanner) -> Range<usize> {
    let keys = body.keys();
    keys.saturating_sub(wire.alternatives())..keys
}

/// Checks that lists of other models are short enough to be changed.
///
/// # Errors
/// [`Fault::LongAlternatives`] if one is too long.
pub fn no_overlong(wire: &dyn Wire, body: &Scanner) -> Result<(), Fault> {
    let is_overlong = |index| body.begun(index).is_some_and(|field| field.overlong);
    match lists(wire, body).any(is_overlong) {
        true => Err(Fault::LongAlternatives),
        false => Ok(()),
    }
}

/// Checks that nothing in the body changes, behind bursar, what the body says.
///
/// # Errors
/// [`Fault::Overrides`] if something does.
pub fn no_overrides(wire: &dyn Wire, body: &Scanner) -> Result<(), Fault> {
    let lists = lists(wire, body);
    if lists.is_empty() {
        return Ok(());
    }
    let [extra, dropped, models] = [3, 2, 1].map(|before| lists.start.saturating_sub(before));
    let matters = |name: &[u8]| {
        let name = string(name).unwrap_or_default();
        name.is_empty() || name.starts_with("max_") || name.starts_with("stream")
    };
    let drops = |list: &[u8]| entries(list).is_none_or(|names| names.into_iter().any(matters));
    let is_given = |index| is_given(body, index);
    match body.value(dropped).filter(|_| is_given(dropped)) {
        _ if is_given(extra) => Err(Fault::Overrides("extra_body")),
        _ if is_given(models) => Err(Fault::Overrides("model_list")),
        Some(list) if list.overlong || drops(&list.raw) => {
            Err(Fault::Overrides("additional_drop_params"))
        }
        _ => Ok(()),
    }
}

/// The model that the body names, and its position; `None` while it has not been read.
///
/// # Errors
/// [`Fault`] if the body names no model, or an invalid one.
pub fn body_model(body: &Scanner) -> Result<Option<(String, &Field)>, Fault> {
    let Some(field) = body.value(0) else {
        return match body.closing_brace() {
            Some(_) => Err(Fault::NoModel),
            None => Ok(None),
        };
    };
    let name = text(field).filter(|name| name.len() <= MAX_MODEL);
    name.map(|name| Some((name, field)))
        .ok_or(Fault::ModelNotText)
}

/// Checks the model that the body names although the path has already named one: which of the two an upstream uses is unknown. The body's
/// name may begin with a path, such as `models/…`.
///
/// # Errors
/// [`Fault::OtherModel`] if the body names another model than the path.
pub fn named_again(wire: &dyn Wire, body: &Scanner, model: &str) -> Result<(), Fault> {
    let index = wire.model_key().filter(|_| !wire.may_differ_from_path());
    let field = index.and_then(|index| body.value(index));
    let Some(field) = field.filter(|field| field.raw != b"null") else {
        return Ok(());
    };
    let name = text(field);
    let last = |name: &str| name.rsplit('/').next().map(str::to_owned);
    match name.is_some_and(|name| last(&name) == last(model)) {
        true => Ok(()),
        false => Err(Fault::OtherModel),
    }
}

/// A whole number of at least 1; `None` if the key is absent or `null`.
///
/// Anything else is refused and not ignored: upstreams are lenient in different ways (`5e4`, a string), and bursar could not have reserved
/// for a number that it did not understand.
pub(super) fn count(
    body: &Scanner,
    index: usize,
    name: &'static str,
) -> Result<Option<u64>, Fault> {
    counted(digits(body, index), name)
}

/// As [`count`], but a number may also be a string, as in protocol buffers.
pub(super) fn count_or_text(
    body: &Scanner,
    index: usize,
    name: &'static str,
) -> Result<Option<u64>, Fault> {
    counted(digits(body, index).map(bare), name)
}

fn counted(digits: Option<&[u8]>, name: &'static str) -> Result<Option<u64>, Fault> {
    let Some(digits) = digits else {
        return Ok(None);
    };
    let count = whole(digits).filter(|&count| count > 0);
    count.map(Some).ok_or(Fault::NotACount(name))
}

/// The least output limit that exceeds the largest thinking budget under these keys. Anything but a whole number is left to the upstream.
pub(super) fn above(body: &Scanner, budgets: &[usize]) -> u64 {
    let budgets = budgets.iter();
    let most = budgets
        .filter_map(|&index| whole(value(body, index)?))
        .max();
    most.unwrap_or(0).saturating_add(1)
}

/// An output limit: a whole number; `None` if it is negative, which means no limit on some servers.
fn limit(digits: &[u8], name: impl FnOnce() -> &'static str) -> Result<Option<u64>, Fault> {
    match digits.strip_prefix(b"-") {
        Some(digits) if whole(digits).is_some() => Ok(None),
        _ => whole(digits)
            .map(Some)
            .ok_or_else(|| Fault::NotALimit(name())),
    }
}

/// The raw value of a number, unless the key is absent or `null`; empty if the value is overlong.
fn digits(body: &Scanner, index: usize) -> Option<&[u8]> {
    let field = body.value(index).filter(|field| field.raw != b"null")?;
    Some(field.raw.as_slice())
        .filter(|_| !field.overlong)
        .or(Some(b""))
}

/// The bytes between the quotes, if there are any.
fn bare(digits: &[u8]) -> &[u8] {
    let text = digits.strip_prefix(b"\"");
    text.and_then(|text| text.strip_suffix(b"\""))
        .unwrap_or(digits)
}

impl OutputLimits {
    fn digits<'a>(&self, body: &'a Scanner, index: usize) -> Option<&'a [u8]> {
        let digits = digits(body, index);
        digits.map(|digits| {
            if self.may_be_text {
                bare(digits)
            } else {
                digits
            }
        })
    }
}

fn whole(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    match digits {
        // The fast path for plain decimal numbers, which nearly all are.
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => text.parse().ok(),
        _ => Number::parse(text).ok()?.whole(),
    }
}

/// True, or false if the key is absent or `null`.
pub(super) fn flag(body: &Scanner, index: usize, name: &'static str) -> Result<bool, Fault> {
    match body
        .value(index)
        .map_or(b"null".as_slice(), |field| &field.raw)
    {
        b"true" => Ok(true),
        b"false" | b"null" => Ok(false),
        _ => Err(Fault::NotABool(name)),
    }
}

/// Whether the key has a value other than `null` and an empty list, object or string.
pub(super) fn is_given(body: &Scanner, index: usize) -> bool {
    is_beyond(body, index, &[])
}

/// Whether the key has a level of effort above `high`, which fewer models have than the others
/// (<https://platform.claude.com/docs/en/build-with-claude/effort>, read 2026-12-01).
#[inline(never)]
pub(super) fn is_high(body: &Scanner, index: usize) -> bool {
    let levels = [
        r#""none""#,
        r#""minimal""#,
        r#""low""#,
        r#""medium""#,
        r#""high""#,
    ];
    is_beyond(body, index, &levels)
}

/// As [`is_given`], for a value that is none of these texts.
#[inline(never)]
pub(super) fn is_beyond(body: &Scanner, index: usize, nothing: &[&str]) -> bool {
    body.begun(index).is_some_and(|field| {
        let is = |nothing: &str| {
            let plain = field.raw.iter().filter(|byte| !byte.is_ascii_whitespace());
            plain.copied().eq(nothing.bytes())
        };
        let empty = ["null", "[]", "{}", "\"\""];
        field.overlong || !empty.into_iter().chain(nothing.iter().copied()).any(is)
    })
}

/// The largest of the output limits that the body gives, for one answer.
///
/// Which of several limits an upstream honours is unknown. So if one of them means no limit, the output counts as unlimited; but the upstream
/// may still honour the others.
pub(super) fn output_limit(
    body: &Scanner,
    limits: OutputLimits,
    shape: &[Key],
) -> Result<Option<u64>, Fault> {
    if let Some((index, name)) = limits.object {
        let first = body.value(index).and_then(|field| field.raw.first());
        if digits(body, index).is_some() && first != Some(&b'{') {
            return Err(Fault::NotAnObject(name));
        }
    }
    let (mut largest, mut is_open) = (None, false);
    for &index in limits.keys {
        let Some(digits) = limits.digits(body, index) else {
            continue;
        };
        let name = || {
            let name = shape.get(index).and_then(|key| key.path.last());
            let name = name.and_then(|name| name.split('|').next());
            name.unwrap_or_default()
        };
        // Ollama takes 0 for no limit (<https://github.com/ollama/ollama>, `runner.go`, read 2026-11-30), Anthropic for no output.
        let limit = limit(digits, name)?.filter(|&limit| limit > 0 || limits.takes_zero);
        is_open |= limit.is_none();
        largest = largest.max(limit);
    }
    let least = if is_open { PRIOR_ANSWER } else { 0 };
    Ok(largest.map(|largest| largest.max(least)))
}

/// The output limit of all answers together.
pub(super) fn over_all(limit: Option<u64>, choices: u64) -> Option<Tokens> {
    limit.map(|limit| Tokens(limit.saturating_mul(choices.max(1))))
}

/// The edits that lower every output limit of a complete body to `most`, or add a limit if there is none.
#[must_use]
pub fn limit_output(wire: &dyn Wire, body: &Scanner, most: u64) -> Vec<Edit> {
    let limits = wire.output_limits();
    let given: Vec<&Field> = limits
        .keys
        .iter()
        .filter(|&&index| digits(body, index).is_some())
        .filter_map(|&index| body.value(index))
        .collect();
    if given.is_empty() {
        return added(body, limits, most).into_iter().collect();
    }
    let is_within = |field: &&Field| {
        let limit = whole(bare(&field.raw));
        limit.is_some_and(|limit| limit <= most && (limit > 0 || limits.takes_zero))
    };
    let too_large = given.into_iter().filter(|field| !is_within(field));
    too_large
        .filter_map(|field| replaced(field, most.to_string()))
        .collect()
}

/// The largest output limit in the entries of lists of other models, which may have limits of their own.
pub fn most_of_alternatives(wire: &dyn Wire, body: &Scanner) -> Option<u64> {
    let mut most = None;
    for index in lists(wire, body) {
        most = most.max(body.value(index).and_then(most_in));
    }
    most
}

/// The edits that leave out lists of other models in which an entry's output limit exceeds `most`.
#[must_use]
pub fn leave_longer_out(wire: &dyn Wire, body: &Scanner, most: u64) -> Vec<Edit> {
    let mut edits = Vec::new();
    for index in lists(wire, body) {
        let longer = body
            .value(index)
            .filter(|field| most_in(field) > Some(most));
        edits.extend(longer.and_then(|field| replaced(field, "null".to_owned())));
    }
    edits
}

/// The largest output limit of a list's entries.
#[inline(never)]
fn most_in(field: &Field) -> Option<u64> {
    let mut most = None;
    for entry in entries(&field.raw).unwrap_or_else(|| vec![&field.raw]) {
        let limits = members(entry, ["max_tokens", "max_completion_tokens"]);
        let [limit, other] = limits.unwrap_or_default();
        most = most.max(limit.and_then(whole)).max(other.and_then(whole));
    }
    most
}

/// The names of the other models that may answer, from the lists that were read to their end. A name that could not be read is empty.
pub fn alternatives(wire: &dyn Wire, body: &Scanner) -> impl Iterator<Item = String> {
    let given = lists(wire, body).filter(|&index| is_given(body, index));
    let lists = given.filter_map(|index| value(body, index));
    lists.flat_map(|list| {
        let entries = entries(list).unwrap_or_else(|| vec![list]);
        entries.into_iter().map(name_of).collect::<Vec<_>>()
    })
}

/// The model of a list's entry, which is a name or an object with a name.
fn name_of(entry: &[u8]) -> String {
    let named = || members(entry, ["model"]).and_then(|[name]| string(name?));
    let name = string(entry).or_else(named);
    name.map(Cow::into_owned).unwrap_or_default()
}

/// The edits that prevent models other than this one from answering.
#[must_use]
pub fn leave_alternatives_out(wire: &dyn Wire, body: &Scanner, model: &str) -> Vec<Edit> {
    let lists = lists(wire, body);
    let entries = lists.end.saturating_sub(LISTS_OF_ENTRIES);
    let given = lists.filter(|&index| is_given(body, index));
    given
        .filter_map(|index| {
            let with = match index < entries {
                true => format!("[{}]", quoted(model)),
                false => "null".to_owned(),
            };
            replaced(body.value(index)?, with)
        })
        .collect()
}

fn replaced(field: &Field, with: String) -> Option<Edit> {
    Some(Edit {
        start: field.start,
        end: field.end?,
        with: with.into_bytes(),
    })
}

fn added(body: &Scanner, limits: OutputLimits, most: u64) -> Option<Edit> {
    let entry = format!("\"{}\":{most}", limits.name?);
    // A key with the value `null` must not be added a second time.
    if let Some(null) = limits.keys.iter().find_map(|&index| body.value(index)) {
        return replaced(null, most.to_string());
    }
    let Some((index, object)) = limits.object else {
        return appended(body, &entry);
    };
    // The entry is added at the object's end, since the object's beginning may already be forwarded.
    match body.value(index) {
        None => appended(body, &format!("\"{object}\":{{{entry}}}")),
        Some(field) if field.raw == b"null" => replaced(field, format!("{{{entry}}}")),
        Some(field) if field.is_empty => inserted(field.end?.saturating_sub(1), entry),
        Some(field) => inserted(field.end?.saturating_sub(1), format!(",{entry}")),
    }
}

/// Adds an entry at the end of the whole object.
fn appended(body: &Scanner, entry: &str) -> Option<Edit> {
    let comma = if body.is_empty() { "" } else { "," };
    inserted(body.closing_brace()?, format!("{comma}{entry}"))
}

fn inserted(at: u64, with: String) -> Option<Edit> {
    Some(Edit {
        start: at,
        end: at,
        with: with.into_bytes(),
    })
}

/// The raw value of a key; empty if it is overlong.
pub(super) fn value(body: &Scanner, index: usize) -> Option<&[u8]> {
    let field = body.value(index).filter(|field| !field.overlong)?;
    Some(&field.raw)
}

/// The numbers of tokens under these keys of an object; `None` for each if the value is not an object.
pub(super) fn tokens<const N: usize>(
    object: Option<&[u8]>,
    keys: [&str; N],
) -> [Option<Tokens>; N] {
    let values = object.and_then(|object| members(object, keys));
    values.unwrap_or([None; N]).map(count_of)
}

/// A number of tokens: neither a fraction nor a string. Servers whose JSON has no integers write `12.0` or `1.2e1`; such a form is accepted
/// only below 2³².
pub(super) fn count_of(value: Option<&[u8]>) -> Option<Tokens> {
    let digits = std::str::from_utf8(value?).ok()?;
    let as_double = || u32::try_from(Number::parse(digits).ok()?.whole()?).ok();
    let count = digits.parse().ok();
    count.or_else(|| as_double().map(u64::from)).map(Tokens)
}
