//! The most that one request may cost, counted as the likely cost of its prompt plus the whole of its output limit.

use super::{LimitIndex, LimitRefusal, Payer, Refusal, Request};
use crate::base::units::{Unit, share};
use crate::estimate::Estimate;
use crate::plan::{Limits, Maximum};

/// Whether a request at a tier keeps to the maximum cost of a single request.
///
/// # Errors
/// The refusal, where the request costs more.
pub(super) fn check(
    limits: &Limits,
    request: &Request<'_>,
    tier: usize,
    estimate: &Estimate,
) -> Result<(), LimitRefusal> {
    match exceeds(limits, request, tier, estimate) {
        false => Ok(()),
        true => Err(LimitRefusal {
            refusal: Refusal::ExceedsMaximum,
            limit: Some(LimitIndex {
                payer: Payer::Tenant,
                book: None,
                limit: Limits::MAX_REQUEST,
            }),
        }),
    }
}

fn exceeds(limits: &Limits, request: &Request<'_>, tier: usize, estimate: &Estimate) -> bool {
    let maximum = limits.max_request.as_ref();
    maximum.is_some_and(|maximum| cost(maximum, request, tier, estimate) > maximum.most)
}

/// The longest answers that a tier may give to the request, and the request's cost with such answers. If that exceeds the maximum of a
/// single request, the answers are shortened, if the plan allows that and they remain long enough to be of use.
pub(super) fn lowered(
    limits: &Limits,
    request: &Request<'_>,
    tier: usize,
    most: Option<u64>,
    estimate: Estimate,
) -> (Option<u64>, Estimate) {
    if exceeds(limits, request, tier, &estimate)
        && let Some(most) = longest(limits, request, tier, &estimate)
    {
        return (Some(most), estimate.cut(most));
    }
    (most, estimate)
}

fn longest(
    limits: &Limits,
    request: &Request<'_>,
    tier: usize,
    estimate: &Estimate,
) -> Option<u64> {
    let maximum = limits.max_request?;
    let least = limits.min_output_tokens?.max(request.scope.least_output?);
    let prompt = cost(&maximum, request, tier, &estimate.limited(Some(0)));
    let room = maximum.most.checked_sub(prompt)?;
    let tokens = match maximum.unit {
        Unit::Tokens => room,
        Unit::UsdMicros => {
            let price = request.price(tier)?.output(estimate.input()).max(1);
            share(room, 1_000_000, price)
        }
    };
    let most = tokens.checked_div(estimate.choices.max(1))?;
    (most >= least).then_some(most)
}

/// What the request is likely to cost if its answer is as long as it may be.
fn cost(maximum: &Maximum, request: &Request<'_>, tier: usize, estimate: &Estimate) -> u64 {
    let (input, output) = (estimate.input(), estimate.output());
    match maximum.unit {
        Unit::Tokens => (input + output).0,
        Unit::UsdMicros => {
            let price = request.price(tier);
            price.map_or(0, |price| price.usual(input, output).0)
        }
    }
}
