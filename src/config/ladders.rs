//! Ladders, their tiers and prices: names that are unique and marks that fall.

use std::collections::HashMap;
use std::num::NonZeroU64;

use super::capacity::capacity;
use super::raw::{RawLadder, RawNeed, RawPrice, RawTier};
use super::{Parsed, mark, whole, wrong};
use crate::name::Name;
use crate::number::Number;
use crate::tier::{Ladder, MAX_TIERS, Needs, Price, Tier};
use crate::units::Ppm;

/// Names of tiers stand in headers and labels.
const TIER_NAME: &str =
    "a tier's name is 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`, and not `unlisted`";

pub(super) fn ladders(
    tiers: Option<Vec<RawTier>>,
    ladders: Option<Vec<RawLadder>>,
) -> Parsed<Vec<Ladder>> {
    let raw = match (tiers, ladders) {
        (Some(_), Some(_)) => return wrong("tiers", "give either `tiers` or `ladders`, not both"),
        (Some(tiers), None) => vec![(
            "tiers".to_owned(),
            RawLadder {
                matches: Vec::new(),
                tiers,
            },
        )],
        (None, ladders) => {
            let path = |(index, ladder)| (format!("ladders[{index}].tiers"), ladder);
            ladders
                .unwrap_or_default()
                .into_iter()
                .enumerate()
                .map(path)
                .collect()
        }
    };
    let mut models: HashMap<Name, String> = HashMap::new();
    raw.into_iter()
        .map(|(path, ladder)| {
            let tiers = check_tiers(ladder.tiers, &path)?;
            for (index, tier) in tiers.iter().enumerate() {
                let here = format!("{path}[{index}].model");
                if let Some(there) = models.insert(tier.model.clone(), here.clone()) {
                    return wrong(
                        here,
                        format!("`{}` is also {there}: a model has one place", tier.model),
                    );
                }
            }
            Ok(Ladder {
                matches: ladder.matches,
                tiers,
            })
        })
        .collect()
}

fn check_tiers(raw: Vec<RawTier>, path: &str) -> Parsed<Vec<Tier>> {
    if !(1..=MAX_TIERS).contains(&raw.len()) {
        return wrong(path, format!("a ladder has 1 to {MAX_TIERS} tiers"));
    }
    let mut tiers: Vec<Tier> = Vec::with_capacity(raw.len());
    let mut above: Option<Ppm> = None;
    for (index, tier) in raw.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !(1..=64).contains(&tier.name.len())
            || !tier.name.chars().all(is_plain)
            || tier.name == "unlisted"
        {
            return wrong(format!("{path}.name"), TIER_NAME);
        }
        if tiers.iter().any(|other| other.name == *tier.name) {
            return wrong(
                format!("{path}.name"),
                format!("two tiers are called `{}`", tier.name),
            );
        }
        if !(1..=256).contains(&tier.model.len())
            || !tier.model.chars().all(|c| c.is_ascii_graphic())
        {
            return wrong(
                format!("{path}.model"),
                "a model's name is 1 to 256 visible ASCII characters",
            );
        }
        let below = tier
            .below
            .map(|below| mark(below, &format!("{path}.below")))
            .transpose()?;
        match (index, below, above) {
            (0, Some(_), _) => {
                return wrong(
                    format!("{path}.below"),
                    "the first tier needs no mark: it serves until another one does",
                );
            }
            (_, Some(below), Some(above)) if below >= above => {
                return wrong(
                    format!("{path}.below"),
                    "must be less than the mark of the tier before",
                );
            }
            _ => above = below.or(above),
        }
        let price = tier
            .price
            .map(|raw| price(&raw, &format!("{path}.price")))
            .transpose()?;
        let most = tier.max_output_tokens;
        let trim = tier.trim.map(|trim| trim.to_tokens);
        tiers.push(Tier {
            name: tier.name.into(),
            model: tier.model.into(),
            price,
            below,
            supports: tier.supports.map_or(Tier::USUAL, |needs| supported(&needs)),
            max_output_tokens: most
                .map(|most| whole(most, &format!("{path}.max_output_tokens")))
                .transpose()?
                .map(NonZeroU64::get),
            trims_to: trim
                .map(|tokens| whole(tokens, &format!("{path}.trim.to_tokens")))
                .transpose()?
                .map(NonZeroU64::get),
            capacity: tier
                .capacity
                .map(|raw| capacity(raw, &format!("{path}.capacity")))
                .transpose()?,
        });
    }
    Ok(tiers)
}

fn supported(needs: &[RawNeed]) -> Needs {
    needs.iter().fold(Needs::NONE, |all, need| {
        all | match need {
            RawNeed::Tools => Needs::TOOLS,
            RawNeed::Images => Needs::IMAGES,
            RawNeed::StructuredOutput => Needs::STRUCTURED_OUTPUT,
            RawNeed::Thinking => Needs::THINKING,
            RawNeed::SignedThinking => Needs::SIGNED_THINKING,
            RawNeed::CachedPrompt => Needs::CACHED_PROMPT,
        }
    })
}

/// USD per million tokens, as USD micros per million tokens.
fn price(raw: &RawPrice, path: &str) -> Parsed<Price> {
    let part = |number: Number, key: &str| match number.millionths() {
        Some(micros) => Ok(micros),
        None => wrong(
            format!("{path}.{key}"),
            "must be an amount with at most six decimals",
        ),
    };
    let input = part(raw.input, "input")?;
    Ok(Price {
        input,
        cached_input: raw
            .cached_input
            .map_or(Ok(input), |number| part(number, "cached_input"))?,
        cache_write: raw
            .cache_write
            .map_or(Ok(input), |number| part(number, "cache_write"))?,
        output: part(raw.output, "output")?,
    })
}

/// The dearest price of all tiers in each part.
pub(super) fn dearest(ladders: &[Ladder]) -> Option<Price> {
    ladders
        .iter()
        .flat_map(|ladder| &ladder.tiers)
        .filter_map(|tier| tier.price)
        .reduce(Price::max)
}
