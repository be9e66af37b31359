//! Ladders with their tiers and prices. Checks that names are unique, and that marks fall from tier to tier.

use super::capacity::capacity;
use super::checks::{any_mark, any_whole};
use super::path::Path;
use super::price::price;
use super::raw::{RawCredentials, RawLadder, RawNeed, RawTier};
use super::{Parsed, wrong};
use crate::base::name::{Name, has_part};
use crate::base::units::Ppm;
use crate::tier::{Ladder, MAX_TIERS, Needs, Price, Tier};

/// The rule for tiers' names, which appear in headers and labels.
const TIER_NAME: &str =
    "a tier's name is 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`, and not `unlisted`";

pub(super) fn ladders(
    tiers: Option<Vec<RawTier>>,
    ladders: Option<Vec<RawLadder>>,
    credentials: RawCredentials,
) -> Parsed<Vec<Ladder>> {
    let mut models = Vec::new();
    match (tiers, ladders) {
        (Some(_), Some(_)) => wrong(
            &Path::Top.key("tiers"),
            "give either `tiers` or `ladders`, not both",
        ),
        (Some(tiers), None) => {
            let matches = Vec::new();
            let ladder = RawLadder {
                matches,
                tiers,
                ask_usage: None,
            };
            Ok(vec![check(
                ladder,
                &Path::Top.key("tiers"),
                credentials,
                &mut models,
            )?])
        }
        (None, ladders) => {
            let path = Path::Top.key("ladders");
            let ladders = ladders.into_iter().flatten().enumerate();
            ladders
                .map(|(index, ladder)| {
                    check(
                        ladder,
                        &path.index(index).key("tiers"),
                        credentials,
                        &mut models,
                    )
                })
                .collect()
        }
    }
}

/// `models`: the models of the ladders before this one, each with its path.
fn check(
    raw: RawLadder,
    path: &Path<'_>,
    credentials: RawCredentials,
    models: &mut Vec<(Name, String)>,
) -> Parsed<Ladder> {
    let tiers = check_tiers(raw.tiers, raw.ask_usage, credentials, path)?;
    for (index, tier) in tiers.iter().enumerate() {
        let here = path.index(index);
        let here = here.key("model");
        if let Some((model, there)) = models.iter().find(|(model, _)| *model == tier.model) {
            return wrong(
                &here,
                format!("`{model}` is also {there}: a model has one place"),
            );
        }
        models.push((tier.model.clone(), here.text()));
    }
    Ok(Ladder {
        matches: raw.matches,
        tiers,
    })
}

/// `ask_usage`, `credentials`: the defaults for tiers that do not set them.
fn check_tiers(
    raw: Vec<RawTier>,
    ask_usage: Option<bool>,
    credentials: RawCredentials,
    path: &Path<'_>,
) -> Parsed<Vec<Tier>> {
    if !(1..=MAX_TIERS).contains(&raw.len()) {
        return wrong(path, format!("a ladder has 1 to {MAX_TIERS} tiers"));
    }
    let mut tiers: Vec<Tier> = Vec::with_capacity(raw.len());
    let mut above: Option<Ppm> = None;
    for (index, tier) in raw.into_iter().enumerate() {
        let path = path.index(index);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=64).contains(&tier.name.len())
            || !tier.name.bytes().all(is_plain)
            || tier.name == "unlisted"
        {
            return wrong(&path.key("name"), TIER_NAME);
        }
        if tiers.iter().any(|other| other.name == *tier.name) {
            return wrong(
                &path.key("name"),
                format!("two tiers are called `{}`", tier.name),
            );
        }
        if !(1..=256).contains(&tier.model.len())
            || !tier.model.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return wrong(
                &path.key("model"),
                "a model's name is 1 to 256 visible ASCII characters",
            );
        }
        let below = any_mark(tier.below, &path.key("below"))?;
        match (index, below, above) {
            (0, Some(_), _) => {
                return wrong(
                    &path.key("below"),
                    "the first tier needs no mark: it serves until another one does",
                );
            }
            (_, Some(below), Some(above)) if below >= above => {
                return wrong(
                    &path.key("below"),
                    "must be less than the mark of the tier before",
                );
            }
            _ => above = below.or(above),
        }
        let price = tier
            .price
            .map(|raw| price(raw, &path.key("price")))
            .transpose()?;
        let trim = tier.trim.map(|trim| trim.to_tokens);
        // All current models of Anthropic cache prompts where they are told to.
        let is_claude = has_part(&tier.model, "claude");
        let usual = Needs::USUAL | Needs::CACHE_SETTINGS.when(is_claude);
        tiers.push(Tier {
            name: tier.name.into(),
            model: tier.model.into(),
            price,
            below,
            supports: tier.supports.map_or(usual, |needs| supported(&needs)),
            context_window: any_whole(tier.context_window, &path.key("context_window"))?,
            asks_usage: tier.ask_usage.or(ask_usage).unwrap_or(true),
            max_output_tokens: any_whole(tier.max_output_tokens, &path.key("max_output_tokens"))?,
            trims_to: any_whole(trim, &path.key("trim").key("to_tokens"))?,
            capacity: tier
                .capacity
                .map(|raw| capacity(raw, &path.key("capacity")))
                .transpose()?,
            own_credentials: tier.credentials.unwrap_or(credentials) == RawCredentials::Own,
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
            RawNeed::AdaptiveThinking => Needs::ADAPTIVE_THINKING,
            RawNeed::Effort => Needs::EFFORT,
            RawNeed::SignedThinking => Needs::SIGNED_THINKING,
            RawNeed::CachedPrompt => Needs::CACHED_PROMPT,
            RawNeed::CacheSettings => Needs::CACHE_SETTINGS,
            RawNeed::RecentFeatures => Needs::RECENT_FEATURES,
        }
    })
}

/// The highest price of all tiers, for each part of a price.
pub(super) fn dearest(ladders: &[Ladder]) -> Option<Price> {
    ladders
        .iter()
        .flat_map(|ladder| &ladder.tiers)
        .filter_map(|tier| tier.price.clone())
        .reduce(Price::max)
}
