//! Usage as reported by servers that are compatible with OpenAI, under their various names: `docs/usage-names.md` lists them with
//! their sources.

use super::read::{count_of, tokens};
use crate::base::units::Tokens;
use crate::body::json::members;
use crate::usage::Usage;

/// The numbers of a `usage` object, before it is known which of them include others.
#[derive(Clone, Copy, Default)]
struct Counts {
    input: Option<Tokens>,
    output: Option<Tokens>,
    total: Option<Tokens>,
    /// Cached tokens under Anthropic's names, which mean that they are not part of the input.
    read: Option<Tokens>,
    written: Option<Tokens>,
    reasoning: Option<Tokens>,
}

/// One way to interpret the numbers: which of them are not included in the input and the output.
#[derive(Clone, Copy)]
struct Reading {
    cache: bool,
    reasoning: bool,
}

/// Reads a `usage` object. Cached tokens are part of the input and reasoning is part of the output, unless only another interpretation adds
/// up to the total. `hides_thoughts`: whether the server counts thoughts only in the total.
pub(super) fn usage_of(usage: &[u8], hides_thoughts: impl FnOnce() -> bool) -> Option<Usage> {
    let [
        prompt,
        completion,
        total,
        of_prompt,
        of_completion,
        read,
        written,
        hit,
        cached,
        input,
        output,
        of_input,
        of_output,
        creation,
        citations,
        researched,
    ] = members(
        usage,
        [
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "prompt_tokens_details",
            "completion_tokens_details",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "prompt_cache_hit_tokens",
            "cached_tokens",
            "input_tokens",
            "output_tokens",
            "input_tokens_details",
            "output_tokens_details",
            "cache_creation",
            "citation_tokens",
            "reasoning_tokens",
        ],
    )?;
    let [prompt, completion, total, read, written] =
        [prompt, completion, total, read, written].map(count_of);
    let [hit, cached, input, output] = [hit, cached, input, output].map(count_of);
    let details = Details::of([of_prompt, of_input], [of_completion, of_output], creation);
    let counts = Counts {
        // Some gateways write both names, with 0 under the unused one.
        input: prompt.max(input),
        output: completion.max(output),
        total,
        read,
        written,
        reasoning: details.reasoning,
    };
    let parts = counts.parts(hides_thoughts);
    // Perplexity's research: what was read and thought before the answer is in no total, but is billed. Otherwise the reasoning is part of
    // the output.
    let researched = count_of(researched).filter(|_| parts.output.is_some());
    let (read_first, thought_first) =
        match researched.filter(|thought| Some(*thought) > parts.output) {
            Some(thought) => (count_of(citations).unwrap_or_default(), thought),
            None => Default::default(),
        };
    let usage = Usage {
        input: parts.input.map(|input| input + read_first),
        output: parts.output.map(|output| output + thought_first),
        cached_input: details.cached.or(hit).or(cached).max(read),
        cache_write: details.written.max(written),
        cache_write_1h: details.written_1h,
        ..parts
    };
    Some(usage.consistent())
}

/// The numbers in the objects nested in a `usage`.
struct Details {
    cached: Option<Tokens>,
    written: Option<Tokens>,
    written_1h: Option<Tokens>,
    reasoning: Option<Tokens>,
}

impl Details {
    fn of(
        of_input: [Option<&[u8]>; 2],
        of_output: [Option<&[u8]>; 2],
        creation: Option<&[u8]>,
    ) -> Self {
        let hour = |creation: Option<&[u8]>| tokens(creation, ["ephemeral_1h_input_tokens"])[0];
        let mut details = Self {
            cached: None,
            written: None,
            written_1h: hour(creation),
            reasoning: None,
        };
        for object in of_input.into_iter().flatten() {
            let names = [
                "cached_tokens",
                "cache_write_tokens",
                "cache_creation_input_tokens",
                "cache_creation_tokens",
                "cache_creation",
            ];
            let values = members(object, names).unwrap_or_default();
            let [cached, one, other, another, creation] = values;
            let [cached, one, other, another] = [cached, one, other, another].map(count_of);
            details.cached = details.cached.max(cached);
            details.written = details.written.max(one).max(other).max(another);
            details.written_1h = details.written_1h.max(hour(creation));
        }
        for object in of_output.into_iter().flatten() {
            let [reasoning] = tokens(Some(object), ["reasoning_tokens"]);
            details.reasoning = details.reasoning.max(reasoning);
        }
        details
    }
}

impl Counts {
    fn cache(&self) -> Tokens {
        self.read.unwrap_or_default() + self.written.unwrap_or_default()
    }

    fn input_by(&self, reading: Reading) -> Option<Tokens> {
        let beside = if reading.cache {
            self.cache()
        } else {
            Tokens(0)
        };
        self.input.map(|input| input + beside)
    }

    fn output_by(&self, reading: Reading) -> Option<Tokens> {
        let reasoning = self.reasoning.filter(|_| reading.reasoning);
        self.output
            .map(|output| output + reasoning.unwrap_or_default())
    }

    fn sum_by(&self, reading: Reading) -> Option<Tokens> {
        Some(self.input_by(reading)? + self.output_by(reading)?)
    }

    /// The interpretation that adds up; otherwise the one in which no part is larger than its whole.
    fn reading(&self) -> Reading {
        let all = [(false, false), (true, false), (false, true), (true, true)];
        let all = all.map(|(cache, reasoning)| Reading { cache, reasoning });
        let mut fitting = all
            .into_iter()
            .filter(|&reading| self.total.is_some() && self.sum_by(reading) == self.total);
        fitting.next().unwrap_or_else(|| Reading {
            cache: self.input.is_some_and(|input| self.cache() > input),
            reasoning: self.output.is_some() && self.reasoning > self.output,
        })
    }

    /// Input and output. If no interpretation adds up, nothing is guessed: the parts are used as they are.
    fn parts(&self, hides_thoughts: impl FnOnce() -> bool) -> Usage {
        let reading = self.reading();
        let (input, output) = (self.input_by(reading), self.output_by(reading));
        let rest = |part: Option<Tokens>| Some(self.total? - part?);
        let usage = Usage {
            input: input.or_else(|| rest(output)),
            output: output.or_else(|| rest(input)),
            ..Usage::default()
        };
        let sum = usage.is_whole().then(|| usage.total());
        match (self.total, sum) {
            (Some(total), Some(sum)) if total > sum && hides_thoughts() => Usage {
                output: rest(usage.input),
                ..usage
            },
            (total, sum) => Usage {
                other_total: total.filter(|_| total != sum),
                ..usage
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Input, cached tokens, written tokens, output, and a total that contradicts them.
    fn read(usage: &str) -> [Option<u64>; 5] {
        let usage = usage_of(usage.as_bytes(), || false).unwrap();
        let Usage {
            input,
            cached_input,
            cache_write,
            output,
            ..
        } = usage;
        [
            input,
            cached_input,
            cache_write,
            output,
            usage.contradiction(),
        ]
        .map(|tokens| tokens.map(|tokens| tokens.0))
    }

    #[test]
    fn cached_tokens_are_in_the_input_or_beside_it_as_the_total_says() {
        for (usage, expected) in [
            // Cached tokens besides the input.
            (
                r#"{"prompt_tokens":300,"completion_tokens":68,"total_tokens":10923,"cache_read_input_tokens":10000,"cache_creation_input_tokens":555}"#,
                [Some(10855), Some(10000), Some(555), Some(68), None],
            ),
            // Cached tokens besides the input, although they could be part of it.
            (
                r#"{"prompt_tokens":3000,"completion_tokens":68,"total_tokens":5068,"cache_read_input_tokens":2000}"#,
                [Some(5000), Some(2000), None, Some(68), None],
            ),
            // Cached tokens within the input.
            (
                r#"{"prompt_tokens":10855,"completion_tokens":68,"total_tokens":10923,"cache_read_input_tokens":10000,"cache_creation_input_tokens":555}"#,
                [Some(10855), Some(10000), Some(555), Some(68), None],
            ),
            // More cached tokens than input, and no total.
            (
                r#"{"prompt_tokens":3,"completion_tokens":5,"cache_read_input_tokens":2000}"#,
                [Some(2003), Some(2000), None, Some(5), None],
            ),
            (
                r#"{"prompt_tokens":3000,"completion_tokens":5,"cache_read_input_tokens":2000}"#,
                [Some(3000), Some(2000), None, Some(5), None],
            ),
        ] {
            assert_eq!(read(usage), expected, "{usage}");
        }
    }

    #[test]
    fn what_does_not_add_up_is_counted_as_it_stands() {
        for (usage, expected) in [
            (
                r#"{"prompt_tokens":300,"completion_tokens":68,"total_tokens":9000}"#,
                [Some(300), None, None, Some(68), Some(9000)],
            ),
            (
                r#"{"prompt_tokens":300,"completion_tokens":68,"total_tokens":1}"#,
                [Some(300), None, None, Some(68), Some(1)],
            ),
            (
                r#"{"prompt_tokens":300,"total_tokens":368}"#,
                [Some(300), None, None, Some(68), None],
            ),
            (
                r#"{"completion_tokens":68,"total_tokens":368}"#,
                [Some(300), None, None, Some(68), None],
            ),
            (r#"{"total_tokens":368}"#, [None; 5]),
            (
                r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#,
                [Some(0), None, None, Some(0), None],
            ),
        ] {
            assert_eq!(read(usage), expected, "{usage}");
        }
    }

    #[test]
    fn thoughts_are_output_wherever_they_stand() {
        for (usage, output) in [
            // Reasoning besides the output, as xAI reports it.
            (
                r#"{"prompt_tokens":10,"completion_tokens":1,"total_tokens":397,"completion_tokens_details":{"reasoning_tokens":386}}"#,
                387,
            ),
            // Reasoning within the output.
            (
                r#"{"prompt_tokens":10,"completion_tokens":387,"total_tokens":397,"completion_tokens_details":{"reasoning_tokens":386}}"#,
                387,
            ),
        ] {
            assert_eq!(read(usage)[3], Some(output), "{usage}");
        }
        // Thoughts in the total alone, as Gemini reports them.
        let hidden = br#"{"prompt_tokens":20,"completion_tokens":198,"total_tokens":623}"#;
        let usage = usage_of(hidden, || true).unwrap();
        assert_eq!(usage.output, Some(Tokens(603)));
        assert_eq!(usage.contradiction(), None);
    }
}
