//! What models cost.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn money_is_exact() {
    let limits = acme(&with(|config| {
        for tier in [0, 1] {
            config["tiers"][tier]["price"] = serde_json::json!({"input": 0.075, "output": 10});
        }
        config["plans"]["gold"]["budget"] =
            serde_json::json!({"initial_budget": 50.1, "unit": "usd", "window": "month"});
    }));
    let budget = limits.budget.unwrap();
    assert_eq!(
        (budget.initial_budget, budget.unit),
        (50_100_000, Unit::UsdMicros)
    );
}

#[test]
fn a_model_on_no_ladder_costs_as_much_as_the_dearest_tier() {
    let text = with(|config| {
        config["tiers"][0]["price"] = serde_json::json!({"input": 2.5, "output": 1});
        config["tiers"][1]["price"] =
            serde_json::json!({"input": 1, "cached_input": 0.5, "output": 10});
    });
    let config = Config::parse(text.as_bytes()).unwrap();
    let expected = Price::from(Rates {
        input: 2_500_000,
        cached_input: 2_500_000,
        cache_write: 2_500_000,
        cache_write_1h: 2_500_000,
        output: 10_000_000,
    });
    assert_eq!(config.unlisted_price, Some(expected));
}

#[test]
fn a_price_has_steps_and_service_tiers() {
    let text = with(|config| {
        config["tiers"][0]["price"] = serde_json::json!({
            "input": 3, "cached_input": 0.3, "cache_write": 3.75, "cache_write_1h": 6, "output": 15,
            "service_tiers": {"priority": 2.0, "flex": 0.5},
            "above": [{"input_tokens": 200_000, "input": 6, "output": 22.5}],
        });
        config["tiers"][1]["price"] = serde_json::json!({
            "input": 1, "cache_write": 2, "output": 2,
            "service_tiers": {"priority": 3},
            "above": [{"input_tokens": 1000, "input": 4}],
        });
    });
    let config = Config::parse(text.as_bytes()).unwrap();
    let prices: Vec<_> = config.ladders[0]
        .tiers
        .iter()
        .filter_map(|tier| tier.price.clone())
        .collect();
    let tier = |name, ppm| (ServiceTier::of(name).unwrap(), Ppm(ppm));
    let rates = |[input, cached_input, cache_write, cache_write_1h, output]: [u64; 5]| Rates {
        input,
        cached_input,
        cache_write,
        cache_write_1h,
        output,
    };
    let step = |above, of| Step {
        above: Tokens(above),
        rates: rates(of),
    };
    let sonnet = [3_000_000, 300_000, 3_750_000, 6_000_000, 15_000_000];
    let long = [6_000_000, 300_000, 3_750_000, 6_000_000, 22_500_000];
    assert_eq!(
        prices[0],
        Price {
            rates: rates(sonnet),
            steps: vec![step(200_000, long)],
            service_tiers: vec![tier("flex", 500_000), tier("priority", 2_000_000)],
        }
    );
    // Rates of the cache that the price does not state have the same defaults in a step.
    let small = [4_000_000, 4_000_000, 2_000_000, 2_000_000, 2_000_000];
    assert_eq!(prices[1].steps, [step(1_000, small)]);
    let middle = [4_000_000, 4_000_000, 3_750_000, 6_000_000, 15_000_000];
    let most = [6_000_000, 4_000_000, 3_750_000, 6_000_000, 22_500_000];
    let dearest = config.unlisted_price.unwrap();
    assert_eq!(dearest.steps, [step(1_000, middle), step(200_000, most)]);
    // A service tier at half the price for one model costs the full price for the other.
    assert_eq!(
        dearest.service_tiers,
        [tier("flex", 1_000_000), tier("priority", 3_000_000)]
    );
}

#[test]
fn a_price_that_no_reservation_bounds_is_refused() {
    for (key, value, error) in [
        (
            "above",
            serde_json::json!([{"input_tokens": 0, "input": 6}]),
            "above[0].input_tokens: must be a whole number of at least 1",
        ),
        (
            "above",
            serde_json::json!([{"input_tokens": 9}, {"input_tokens": 9}]),
            "above[1].input_tokens: must be more than in the step before",
        ),
        (
            "above",
            serde_json::json!([{"input_tokens": 9, "input": 2}]),
            "above[0].input: must be no less than for shorter prompts",
        ),
        (
            "above",
            serde_json::json!([{"input_tokens": 9, "output": 30}, {"input_tokens": 10}]),
            "above[1].output: must be no less than for shorter prompts",
        ),
        (
            "above",
            serde_json::json!([{"input_tokens": 9, "output": 1e30}]),
            "above[0].output: must be an amount with at most six decimals",
        ),
        (
            "service_tiers",
            serde_json::json!({"flex": 0}),
            "service_tiers.flex: must be a number above 0 with at most six decimals",
        ),
        (
            "service_tiers",
            serde_json::json!({"Flex": 1}),
            "service_tiers.Flex: a service tier's name is 1 to 16 of a-z, 0-9, `-` and `_`",
        ),
    ] {
        let text = with(|config| {
            config["tiers"][0]["price"] = serde_json::json!({"input": 3, "output": 15});
            config["tiers"][0]["price"][key] = value.clone();
        });
        rejects(&text, &format!("tiers[0].price.{error}"));
    }
}
