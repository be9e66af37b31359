//! Pace: whether what remains of a budget lasts until its window ends, at the rate at which the tenant has recently spent.
//!
//! For a tier with the low-water mark `m`, a fraction of the initial budget:
//!
//! ```text
//! R  what remains of the budget                                               tokens or USD micros
//! L  time until the window's end                                              ns
//! S  what recently settled requests would have cost, if none had been         tokens or USD micros
//!    served better than by the tier before this one; halved every half-life
//! h  half-life                                                                ns
//! r  burn rate at that tier: r = S × ln 2 / h                                 tokens or USD micros a ns
//! E  projected exhaustion:  E = R / r                                         ns
//!
//! mark = m                         if E ≥ L, or if nothing was settled recently
//!      = m + (c − m) × (1 − E/L)   else, up to the cap c; a mark above the cap stays
//! ```
//!
//! So each mark depends on whether the budget would last at the tier *before* the mark's own. `S` is not what was spent: actual spend falls
//! as soon as requests are downgraded, so a mark that used it would rise and fall by its own effect, and requests would pass through every
//! tier in each half-life. As defined here, `S` depends only on what is requested. `S` is counted for each tier: if the third tier is far
//! cheaper than the second, a budget that cannot bear the first may well bear the second.
//!
//! `r` is right once requests have come evenly for some half-lives, and too low before. So for a tenant that has just begun, the static
//! marks apply. `S` is kept beyond the window's end. All else equal, the mark falls as `R` rises.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::base::units::{Cost, Micros, Ppm, Timestamp, Tokens, Unit};

/// How low-water marks rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// No mark rises above this.
    pub cap: Ppm,
    /// Nanoseconds in which the weight of what was spent halves.
    pub half_life: NonZeroU64,
}

/// What a tenant's recently settled requests would have cost at each tier, as of a given time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Burn {
    /// The time as of which the levels hold. Two such times always differ by a whole number of steps.
    pub since: Timestamp,
    /// The cost if no request had been served better than by the first tier of its ladder, by the second, … At most [`LEVELS`].
    pub levels: Vec<Cost>,
}

/// The most levels of a [`Burn`]: one for each tier but the last of a ladder. This bounds a ladder's length
/// ([`crate::tier::MAX_TIERS`]).
pub const LEVELS: usize = 15;

/// Steps in a half-life. Within a step nothing decays, so that frequent small figures are not rounded away.
const STEPS: u64 = 64;

/// The fraction that is left after a step, 2^(-1/64), in units of 1/2^32.
const KEPT: u128 = 4_248_701_965;

/// ln 2 in millionths.
const LN_2: u128 = 693_147;

const MILLION: u128 = 1_000_000;

impl Burn {
    /// The burn after one more request, which is settled `now`. `levels`: what the request would have cost at each level.
    #[must_use]
    pub fn plus(self, demand: &[Cost], half_life: NonZeroU64, now: Timestamp) -> Self {
        let (since, steps) = steps(self.since, half_life, now);
        let count = demand.len().max(self.levels.len()).min(LEVELS);
        let nth = |list: &[Cost], level: usize| list.get(level).or_else(|| list.last()).copied();
        let level = |level| {
            let old = nth(&self.levels, level).unwrap_or(Cost::ZERO);
            let new = nth(demand, level).unwrap_or(Cost::ZERO);
            decayed(old, steps).plus(new)
        };
        Self {
            since,
            levels: (0..count).map(level).collect(),
        }
    }

    /// What is left of a level at `now`, in the unit of a budget.
    #[must_use]
    pub fn at(&self, level: usize, unit: Unit, half_life: NonZeroU64, now: Timestamp) -> u64 {
        let (_, steps) = steps(self.since, half_life, now);
        let cost = self.levels.get(level).or_else(|| self.levels.last());
        cost.map_or(0, |&cost| unit.of(decayed(cost, steps)))
    }
}

/// The end of the last whole step after `since`, and the number of whole steps up to that end.
pub(super) fn steps(since: Timestamp, half_life: NonZeroU64, now: Timestamp) -> (Timestamp, u64) {
    // If `since` is later than `now`, another worker read the clock later but wrote earlier, unless the clock was set back.
    let since = if since.is_set_back(now) { now } else { since };
    let step = half_life.get().div_ceil(STEPS);
    let steps = now.nanos_since(since).checked_div(step).unwrap_or(0);
    (since.plus_nanos(steps.saturating_mul(step)), steps)
}

impl Pace {
    /// A tier's current mark. `below` is its static mark, `burn` what the tenant's requests would have cost at the tier before it, `left`
    /// the time until the window's end.
    #[must_use]
    pub fn mark(&self, below: Ppm, remaining: u64, burn: u64, left: Duration) -> Ppm {
        let Some(span) = self.cap.0.checked_sub(below.0) else {
            return below;
        };
        let lasting = self.lasting(remaining, burn, left);
        let missing = Ppm(MILLION_PPM.saturating_sub(lasting));
        Ppm(below.0.saturating_add(missing.of(span)))
    }

    /// E / L in millionths, at most one whole.
    fn lasting(&self, remaining: u64, burn: u64, left: Duration) -> u64 {
        // With times in milliseconds, the products fit into 128 bits; an amount for which they would not is far beyond any budget.
        let half_life = u128::from(self.half_life.get()).div_ceil(MILLION);
        let numerator = u128::from(remaining)
            .saturating_mul(half_life)
            .saturating_mul(MILLION);
        let denominator = u128::from(burn)
            .saturating_mul(left.as_millis())
            .saturating_mul(LN_2)
            / MILLION;
        let lasting = numerator.checked_div(denominator);
        let lasting = lasting.and_then(|lasting| u64::try_from(lasting).ok());
        lasting.unwrap_or(MILLION_PPM).min(MILLION_PPM)
    }
}

const MILLION_PPM: u64 = 1_000_000;

/// What is left of a cost after this many steps.
#[inline(never)]
pub(super) fn decayed(cost: Cost, steps: u64) -> Cost {
    let part = |amount: u64| {
        let halvings = u32::try_from(steps / STEPS).unwrap_or(u32::MAX);
        let amount = amount.checked_shr(halvings).unwrap_or(0);
        (0..steps % STEPS).fold(amount, |amount, _| {
            let kept = u128::from(amount).saturating_mul(KEPT) >> 32;
            u64::try_from(kept).unwrap_or(u64::MAX)
        })
    };
    Cost {
        tokens: Tokens(part(cost.tokens.0)),
        usd: Micros(part(cost.usd.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::budget::tokens;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const HOUR: u64 = 3_600;

    fn hour() -> NonZeroU64 {
        NonZeroU64::new(HOUR * 1_000_000_000).unwrap()
    }

    fn pace() -> Pace {
        Pace {
            cap: Ppm(900_000),
            half_life: hour(),
        }
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1_709_208_000 + secs)
    }

    fn burn(amount: u64) -> Burn {
        Burn::default().plus(&[tokens(amount)], hour(), at(0))
    }

    fn left(burn: &Burn, secs: u64) -> u64 {
        burn.at(0, Unit::Tokens, hour(), at(secs))
    }

    #[test]
    fn the_mark_rises_from_its_static_place_to_the_cap_the_sooner_the_budget_is_spent() {
        // With S = 1,000,000 and h = 1 h, r is 693,147 an hour. With 10 h left, 6,931,470 suffice.
        let ten_hours = Duration::from_secs(10 * HOUR);
        for (remaining, expected) in [
            (u64::MAX, 200_000),
            (6_931_470, 200_000),
            (3_465_735, 550_000),
            (693_147, 830_000),
            (0, 900_000),
        ] {
            let mark = pace().mark(Ppm(200_000), remaining, 1_000_000, ten_hours);
            assert_eq!(mark, Ppm(expected), "{remaining} left");
        }
    }

    #[test]
    fn without_a_history_and_at_the_windows_end_the_mark_is_the_static_one() {
        let day = Duration::from_secs(24 * HOUR);
        assert_eq!(pace().mark(Ppm(200_000), 0, 0, day), Ppm(200_000));
        assert_eq!(
            pace().mark(Ppm(200_000), 1, u64::MAX, Duration::ZERO),
            Ppm(200_000)
        );
        // A mark above the cap stays.
        assert_eq!(pace().mark(Ppm(950_000), 0, u64::MAX, day), Ppm(950_000));
    }

    #[test]
    fn absurd_figures_give_a_mark_between_the_static_one_and_the_cap() {
        for remaining in [0, 1, u64::MAX] {
            for burn in [1, u64::MAX] {
                for left in [Duration::from_nanos(1), Duration::from_nanos(u64::MAX)] {
                    for half_life in [NonZeroU64::MIN, NonZeroU64::MAX] {
                        let pace = Pace {
                            half_life,
                            ..pace()
                        };
                        let mark = pace.mark(Ppm(1), remaining, burn, left);
                        assert!((Ppm(1)..=Ppm(900_000)).contains(&mark));
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_spent_halves_in_a_half_life_and_is_forgotten_at_last() {
        let burn = burn(1 << 20);
        assert_eq!(left(&burn, 0), 1 << 20);
        assert_eq!(left(&burn, HOUR), 1 << 19);
        assert_eq!(left(&burn, 3 * HOUR), 1 << 17);
        let half = left(&burn, HOUR / 2);
        // 2^20 / sqrt 2, less what 32 steps round away.
        assert!((741_455 - 32..=741_455).contains(&half), "{half}");
        assert_eq!(left(&burn, 100 * HOUR), 0);
    }

    #[test]
    fn decay_is_the_same_however_often_it_is_looked_at() {
        let mut often = burn(1 << 30);
        for second in 0..HOUR {
            often = often.plus(&[Cost::ZERO], hour(), at(second));
        }
        let once = left(&burn(1 << 30), HOUR);
        let often = left(&often, HOUR);
        // Each of the 64 steps rounds down.
        assert!((once - 64..=once).contains(&often), "{once} {often}");
    }

    #[test]
    fn an_even_spend_is_found_again_as_the_rate() {
        let mut burn = Burn::default();
        for second in 0..12 * HOUR {
            burn = burn.plus(&[tokens(1_000)], hour(), at(second));
        }
        let sum = u128::from(left(&burn, 12 * HOUR));
        let rate = sum * LN_2 / MILLION / u128::from(HOUR);
        assert!((990..=1_010).contains(&rate), "{rate} a second");
    }

    #[test]
    fn each_level_is_counted_by_itself_and_one_that_is_new_begins_as_the_last() {
        let demand = |amounts: &[u64]| amounts.iter().map(|&n| tokens(n)).collect::<Vec<_>>();
        let burn = Burn::default().plus(&demand(&[100, 40]), hour(), at(0));
        let burn = burn.plus(&demand(&[10, 4, 2]), hour(), at(0));
        let now = |level| burn.at(level, Unit::Tokens, hour(), at(0));
        assert_eq!([0, 1, 2, 3].map(now), [110, 44, 42, 42]);
        assert_eq!(burn.at(0, Unit::UsdMicros, hour(), at(0)), 0);
        let many = Burn::default().plus(&demand(&[1; 40]), hour(), at(0));
        assert_eq!(many.levels.len(), LEVELS);
    }

    // Windows may end while requests are in flight, and clocks may be set back.
    #[test]
    fn a_clock_that_is_set_back_stops_no_decay() {
        let burn = burn(1 << 20);
        // A worker that read its clock a moment before another one wrote.
        let raced = burn
            .clone()
            .plus(&[tokens(1)], hour(), Timestamp::from_secs(1_709_207_999));
        assert_eq!(raced.since, burn.since);
        let set_back = Timestamp::from_secs(1_000);
        let back = burn.plus(&[tokens(0)], hour(), set_back);
        assert_eq!(back.since, set_back);
        let later = Timestamp::from_secs(1_000 + HOUR);
        assert_eq!(back.at(0, Unit::Tokens, hour(), later), 1 << 19);
    }
}
