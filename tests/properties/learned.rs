//! What is learned of prompts and answers, and the record that keeps it.

use bursar::base::units::{Timestamp, Tokens};
use bursar::estimate::learn::{BytesPerToken, Learned, Model, Observation};
use bursar::state::record::Record;
use proptest::prelude::*;

/// Figures of a report, absurd ones among them.
fn any_figure() -> impl Strategy<Value = u64> {
    prop_oneof![0..3_000_u64, any::<u64>(), Just(0), Just(u64::MAX)]
}

fn any_bytes_per_token() -> impl Strategy<Value = BytesPerToken> {
    let reports = prop::collection::vec((any_figure(), any_figure()), 0..60);
    reports.prop_map(|reports| {
        let learn = |figure: BytesPerToken, (bytes, tokens)| figure.after(bytes, Tokens(tokens));
        reports.into_iter().fold(BytesPerToken::PRIOR, learn)
    })
}

proptest! {
    #[test]
    fn bytes_per_token_stay_bounded_and_no_report_moves_them_far(
        figure in any_bytes_per_token(), bytes in any_figure(), tokens in any_figure(),
    ) {
        let after = figure.after(bytes, Tokens(tokens));
        prop_assert!((BytesPerToken::LEAST..=BytesPerToken::MOST).contains(&after));
        let width = BytesPerToken::MOST.in_65536ths() - BytesPerToken::LEAST.in_65536ths();
        prop_assert!(after.in_65536ths().abs_diff(figure.in_65536ths()) <= width / 16);
    }

    #[test]
    fn more_bytes_reported_or_learned_never_mean_fewer(
        one in any_bytes_per_token(), other in any_bytes_per_token(), bytes in any_figure(), more in any_figure(), tokens in any_figure(),
    ) {
        let tokens = Tokens(tokens);
        prop_assert!(one.after(bytes, tokens) <= one.after(bytes.saturating_add(more), tokens));
        prop_assert!(one.min(other).after(bytes, tokens) <= one.max(other).after(bytes, tokens));
    }

    #[test]
    fn bytes_per_token_come_to_what_is_reported(figure in any_bytes_per_token(), tokens in 50..5_000_u64, per_token in 2..=16_u32) {
        let (mut figure, seen) = (figure, per_token * 65_536);
        for _ in 0..3_000 {
            let before = figure.in_65536ths().abs_diff(seen);
            figure = figure.after(tokens * u64::from(per_token), Tokens(tokens));
            prop_assert!(figure.in_65536ths().abs_diff(seen) <= before);
        }
        // To within what rounding leaves: half a unit of the sum by the weight.
        prop_assert!(u64::from(figure.in_65536ths().abs_diff(seen)) <= 8_192 / tokens.min(1_024) + 1);
    }

    #[test]
    fn what_is_reserved_for_an_answer_stays_bounded_and_at_most_doubles(
        seen in prop::collection::vec((0..12_u32, any_lesson()), 0..80), model in 0..12_u32, answer in any_figure(),
    ) {
        let mut learned = Learned::default();
        for (model, observation) in seen {
            learned.learn(Model(model), observation, Timestamp::from_secs(1));
        }
        let before = learned.of(Model(model)).answers.expected().0;
        prop_assert!((128..=16_384).contains(&before));
        learned.learn(Model(model), answered(answer), Timestamp::from_secs(1));
        let after = learned.of(Model(model)).answers.expected().0;
        prop_assert!((before * 3 / 4 - 1..=before * 2 + 1).contains(&after));
        let record = Record { learned, ..Record::default() };
        prop_assert!(record.encode().len() <= 946);
        prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn answers_of_a_length_come_to_be_expected_at_that_length(
        seen in prop::collection::vec(any_figure(), 0..40), answer in 128..=16_384_u64,
    ) {
        let mut learned = Learned::default();
        for answer in seen.into_iter().chain([answer; 200]) {
            learned.learn(Model(1), answered(answer), Timestamp::from_secs(1));
        }
        prop_assert_eq!(learned.of(Model(1)).answers.expected(), Tokens(answer));
    }
}

fn answered(tokens: u64) -> Observation {
    Observation {
        prompt: None,
        answer: Some(Tokens(tokens)),
        peak: None,
    }
}

fn any_lesson() -> impl Strategy<Value = Observation> {
    let prompt = prop::option::of((any_figure(), any_figure().prop_map(Tokens)));
    let answer = prop::option::of(any_figure().prop_map(Tokens));
    (prompt, answer).prop_map(|(prompt, answer)| Observation {
        prompt,
        answer,
        peak: None,
    })
}

proptest! {
    // A value under our key may be older, cut off, or another plugin's.
    #[test]
    fn a_record_is_read_as_it_was_written_or_not_at_all(bytes in prop::collection::vec(any::<u8>(), 0..140), cut in any::<bool>()) {
        let version = [b"brs\x01", b"brs\x02", b"brs\x03", b"brs\x04", b"brs\x05"][bytes.len() % 5];
        let bytes = if cut { bytes } else { [version.as_slice(), &bytes].concat() };
        if let Ok(record) = Record::decode(&bytes) {
            prop_assert_eq!(record.encode(), bytes);
        }
    }
}
