//! What holds whatever comes: any chunking, any interleaving, any clock, any bytes.
#![cfg(not(target_arch = "wasm32"))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed set-up is a failed test"
)]

#[path = "properties/capacity.rs"]
mod capacity;
#[path = "support/frames.rs"]
mod frames;
#[path = "properties/latency.rs"]
mod latency;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/store.rs"]
mod store;
#[path = "properties/usage.rs"]
mod usage_by_tree;

use std::num::NonZeroU64;

use bursar::bucket::{Bucket, NotNow, Quota};
use bursar::eventstream::{Frames, Kind, Part};
use bursar::learn::{BytesPerToken, Learned, Lesson, Model};
use bursar::record::Record;
use bursar::sse::{Events, Judge, Verdict};
use bursar::units::{Ppm, Timestamp, Tokens};
use proptest::prelude::*;
use proxy::{Call, Proxy, usage};
use serde_json::{Value, json};

fn chunks<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2)
        .map(|pair| &bytes[pair[0]..pair[1]])
        .collect()
}

/// Any JSON value, keys such as `model` and awkward strings among them.
fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "model|stream|n|[{}\\[\\]\",:\\\\ é🎉]{0,6}",
        any::<String>()
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.clone().prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text.clone(), inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// Collects events; every second one is to be taken out.
#[derive(Default)]
struct Seen(Vec<Vec<u8>>, Vec<u8>);

impl Judge for Seen {
    fn data(&mut self, bytes: &[u8]) {
        self.1.extend(bytes);
    }

    fn end(&mut self) -> Verdict {
        self.0.push(std::mem::take(&mut self.1));
        if self.0.last().unwrap().len().is_multiple_of(2) {
            Verdict::Keep
        } else {
            Verdict::Drop
        }
    }
}

fn config(hold: bool) -> Value {
    json!({
        "hold_headers": hold,
        "tiers": [{"name": "a", "model": "big"}, {"name": "b", "model": "a \"small\" one".replace([' ', '"'], "-"), "below": 1}],
        "tenants": {"acme": {"budget": {"initial_budget": 1_000_000, "window": "day"}}}
    })
}

proptest! {
    // cases.md 31
    #[test]
    fn only_the_model_changes_in_any_body_in_any_chunking(
        before in any_json(), after in any_json(), hold in any::<bool>(), pretty in any::<bool>(),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let proxy = Proxy::new(&config(hold));
        proxy.served("acme", r#"{"model":"big","max_tokens":1}"#, 5, 5);
        let part = |value: &Value| if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }.unwrap();
        let body = format!("{{\"x\":{},\"model\" :\"big\", \"y\": {}}}", part(&before), part(&after));
        let expected = body.replacen("\"model\" :\"big\"", "\"model\" :\"a--small--one\"", usize::MAX);
        // The fillers must not hold the very text that is looked for.
        prop_assume!(body.matches("\"model\" :\"big\"").count() == 1);
        let length = body.len().to_string();
        let mut call = proxy.post(&[("x-tenant-id", "acme"), ("content-length", &length)]);
        call.send(&chunks(body.as_bytes(), &cuts));
        prop_assert_eq!(call.refused(), None);
        prop_assert_eq!(call.upstream_text(), expected.as_str());
        let promised = call.upstream_header("content-length").map(str::to_owned);
        prop_assert_eq!(promised, hold.then(|| expected.len().to_string()));
    }

    // cases.md 43
    #[test]
    fn any_bytes_are_taken_or_refused_and_leave_nothing_held(
        body in prop::collection::vec(prop_oneof![Just(b'{'), Just(b'"'), Just(b'\\'), Just(b'}'), Just(b':'), any::<u8>()], 0..60),
        hold in any::<bool>(), cuts in prop::collection::vec(any::<usize>(), 0..4),
        answer in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let proxy = Proxy::new(&config(hold));
        proxy.served("acme", r#"{"model":"big","max_tokens":1}"#, 1, 1);
        let mut call = proxy.post(&[("x-tenant-id", "acme")]);
        call.send(&chunks(&body, &cuts));
        call.answer_headers("200", &[("content-type", "text/event-stream")]);
        call.answer_chunk(&answer, false);
        call.end();
        prop_assert_eq!(proxy.record("acme").account.held().tokens.0, 0);
    }

    // cases.md 15, 17
    #[test]
    fn any_chunking_of_a_stream_gives_the_same_events_and_the_same_bytes(
        lines in prop::collection::vec("(data: ?|event: |: |)[a-zé🎉]{0,5}", 0..12),
        ends in prop::collection::vec(prop_oneof![Just("\n"), Just("\r\n"), Just("\r"), Just("\n\n"), Just("\r\r")], 12),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let stream: String = lines.iter().zip(&ends).flat_map(|(line, end)| [line.as_str(), *end]).collect();
        let run = |chunks: &[&[u8]]| {
            let (mut events, mut output, mut seen) = (Events::new(true), Vec::new(), Seen::default());
            for chunk in chunks {
                let passed = events.feed(chunk, &mut seen);
                output.extend(passed.unwrap_or_else(|| chunk.to_vec()));
            }
            output.extend(events.finish(&mut seen));
            (seen.0, output)
        };
        prop_assert_eq!(run(&chunks(stream.as_bytes(), &cuts)), run(&[stream.as_bytes()]));
    }

    // cases.md 46
    #[test]
    fn a_record_is_read_as_it_was_written_or_not_at_all(bytes in prop::collection::vec(any::<u8>(), 0..140), cut in any::<bool>()) {
        let version = [b"brs\x01", b"brs\x02", b"brs\x03"][bytes.len() % 3];
        let bytes = if cut { bytes } else { [version.as_slice(), &bytes].concat() };
        if let Ok(record) = Record::decode(&bytes) {
            prop_assert_eq!(record.encode(), bytes);
        }
    }
}

/// A quota with more and with less than a cell a nanosecond.
fn any_quota() -> impl Strategy<Value = Quota> {
    let small = 1..50_u64;
    (
        prop_oneof![small.clone(), Just(3_000_000_000)],
        prop_oneof![1..1_000_u64, Just(1_000_000_000)],
        small,
    )
        .prop_map(|(tokens, window, burst)| Quota {
            tokens_per_window: NonZeroU64::new(tokens).unwrap(),
            window: NonZeroU64::new(window).unwrap(),
            burst: NonZeroU64::new(burst).unwrap(),
            low_water_mark: Some(Ppm(500_000)),
        })
}

proptest! {
    #[test]
    fn a_bucket_never_gives_more_than_its_burst_and_what_came_back(
        quota in any_quota(), asks in prop::collection::vec((0..60_u64, prop_oneof![0..5_u64, 0..2_000_000_000_u64]), 1..60),
    ) {
        let (mut bucket, mut now, mut given) = (Bucket::default(), 1_000_u64, 0_u128);
        for (cells, gap) in asks {
            now += gap;
            let at = Timestamp::from_nanos(now);
            if quota.check(bucket, cells, at).is_ok() {
                bucket = quota.charge(bucket, cells, at);
                given += u128::from(cells);
            }
            let back = u128::from(now - 1_000) * u128::from(quota.tokens_per_window.get()) / u128::from(quota.window.get());
            prop_assert!(given <= u128::from(quota.burst.get()) + back);
        }
    }

    #[test]
    fn a_refusal_ends_exactly_when_it_says(
        quota in any_quota(), used in 0..200_u64, cells in 0..60_u64, gap in prop_oneof![0..5_u64, 0..2_000_000_000_u64],
    ) {
        let start = Timestamp::from_nanos(1_000);
        let bucket = quota.charge(Bucket::default(), used, start);
        let now = 1_000 + gap;
        match quota.check(bucket, cells, Timestamp::from_nanos(now)) {
            Ok(()) => {}
            Err(NotNow::ExceedsBurst) => prop_assert!(cells > quota.burst.get()),
            Err(NotNow::Wait(wait)) => {
                let end = now + u64::try_from(wait.as_nanos()).unwrap();
                prop_assert!(end > now);
                prop_assert_eq!(quota.check(bucket, cells, Timestamp::from_nanos(end)), Ok(()));
                prop_assert!(quota.check(bucket, cells, Timestamp::from_nanos(end - 1)).is_err());
            }
        }
    }

    #[test]
    fn what_is_taken_and_settled_leaves_what_was_used(
        quota in any_quota(), held in 0..60_u64, used in 0..60_u64, before in 0..60_u64,
    ) {
        let now = Timestamp::from_nanos(1_000);
        let bucket = quota.charge(Bucket::default(), before, now);
        let settled = quota.settle(quota.charge(bucket, held, now), held, used, now, now);
        prop_assert_eq!(settled, quota.charge(bucket, used, now));
    }
}

proptest! {
    #[test]
    fn late_settlements_never_give_a_bucket_more_than_its_burst_and_what_came_back(
        quota in any_quota(),
        asks in prop::collection::vec((0..60_u64, 0..=100_u64, any::<usize>(), prop_oneof![0..5_u64, 0..2_000_000_000_u64]), 1..60),
    ) {
        let (mut bucket, mut now, mut given) = (Bucket::default(), 1_000_u64, 0_u128);
        let mut flight: Vec<(u64, u64, Timestamp)> = Vec::new();
        for (cells, share, at, gap) in asks {
            now += gap;
            let time = Timestamp::from_nanos(now);
            if quota.check(bucket, cells, time).is_ok() {
                bucket = quota.charge(bucket, cells, time);
                given += u128::from(cells);
                flight.push((cells, cells * share / 100, time));
            }
            if share % 2 == 0 && !flight.is_empty() {
                let (held, used, taken) = flight.swap_remove(at % flight.len());
                bucket = quota.settle(bucket, held, used, taken, time);
                given -= u128::from(held - used);
            }
            let back = u128::from(now - 1_000) * u128::from(quota.tokens_per_window.get()) / u128::from(quota.window.get());
            prop_assert!(given <= u128::from(quota.burst.get()) + back);
        }
    }
}

/// What may happen to a tenant's requests, in any order.
#[derive(Clone, Debug)]
enum Happening {
    /// A request that may produce so many tokens.
    Ask(u64),
    /// The request at this place of those in flight is answered: with this share of what it may use, in percent.
    Answer(usize, u64),
    /// It fails upstream.
    Fail(usize),
    /// Its client leaves.
    Leave(usize),
    /// The worker that serves it traps: nobody settles it.
    Trap(usize),
    /// So many of the next writes lose their race.
    Lose(u32),
    /// Time passes, in milliseconds.
    Pass(u64),
    /// The budget is now so many tokens.
    Limit(u64),
}

fn any_happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0..400_u64).prop_map(Happening::Ask),
        4 => (any::<usize>(), 0..=100_u64).prop_map(|(at, share)| Happening::Answer(at, share)),
        1 => any::<usize>().prop_map(Happening::Fail),
        1 => any::<usize>().prop_map(Happening::Leave),
        1 => any::<usize>().prop_map(Happening::Trap),
        1 => (0..12_u32).prop_map(Happening::Lose),
        1 => prop_oneof![0..7_200_000_u64, EXPIRY - 60_000..EXPIRY + 1].prop_map(Happening::Pass),
        1 => (1..4_000_u64).prop_map(Happening::Limit),
    ]
}

/// Of a reservation, in milliseconds. It may expire up to a thirtieth earlier.
const EXPIRY: u64 = 1_800_000;

fn budget(tokens: u64) -> Value {
    json!({
        "hold_headers": true,
        "reservation_expiry": format!("{}s", EXPIRY / 1_000),
        "tenants": {"acme": {"budget": {"initial_budget": tokens, "window": "3h"}}}
    })
}

proptest! {
    // cases.md 1, 3, 4, 6, 8, 24
    #[test]
    fn an_honest_upstream_never_overspends_and_all_that_is_held_is_returned_or_expires(
        happenings in prop::collection::vec(any_happening(), 1..80),
    ) {
        let proxy = Proxy::new(&budget(1_000));
        // The largest budget that was ever in force in the window.
        let mut most = 1_000;
        // What requests used that were answered after their reservation had expired: the one way past the bound.
        let mut late = 0;
        let mut flight: Vec<(Call<'_>, u64, u64)> = Vec::new();
        let mut clock = 0;
        for happening in happenings {
            match happening {
                Happening::Ask(output) => {
                    let call = proxy.chat("acme", &format!(r#"{{"model":"m","max_tokens":{output}}}"#));
                    if call.reply.is_none() {
                        flight.push((call, output, clock));
                    }
                }
                Happening::Answer(at, share) if !flight.is_empty() => {
                    let (mut call, output, since) = flight.swap_remove(at % flight.len());
                    let output = output * share / 100;
                    if clock - since >= EXPIRY / 30 * 29 {
                        late += 20 + output;
                    }
                    call.answer_json(&usage(20, output));
                    call.end();
                }
                Happening::Fail(at) if !flight.is_empty() => {
                    let (mut call, ..) = flight.swap_remove(at % flight.len());
                    call.answer_headers("503", &[]);
                    call.end();
                }
                Happening::Leave(at) if !flight.is_empty() => {
                    let (mut call, _, since) = flight.swap_remove(at % flight.len());
                    if clock - since >= EXPIRY / 30 * 29 {
                        late += 20;
                    }
                    call.end();
                }
                Happening::Trap(at) if !flight.is_empty() => drop(flight.swap_remove(at % flight.len())),
                Happening::Lose(times) => proxy.store.lose(times),
                Happening::Pass(millis) => {
                    clock += millis;
                    proxy.pass_millis(millis);
                }
                Happening::Limit(tokens) => {
                    proxy.configure(&budget(tokens));
                    most = most.max(tokens);
                }
                Happening::Answer(..) | Happening::Fail(_) | Happening::Leave(_) | Happening::Trap(_) => {}
            }
            if let Some(record) = proxy.try_record("acme") {
                prop_assert!(record.account.spent.tokens.0 <= most + late);
            }
        }
        for (mut call, ..) in flight {
            call.end();
        }
        proxy.store.lose(0);
        proxy.pass_millis(EXPIRY);
        // Whoever comes next finds nothing held for those whose worker trapped.
        proxy.configure(&budget(1_000_000));
        proxy.served("acme", r#"{"model":"m","max_tokens":1}"#, 1, 1);
        prop_assert_eq!(proxy.record("acme").account.held().tokens.0, 0);
    }
}

/// A frame of an AWS event stream: its headers, which are texts, and its payload.
type AwsFrame = (Vec<(String, String)>, Vec<u8>);

fn any_aws_frame() -> impl Strategy<Value = AwsFrame> {
    let kind = prop_oneof!["event|exception|error", "[a-z]{0,6}"];
    let name = "[a-zA-Z-]{0,70}";
    let other = prop::collection::vec(("[a-z]{1,90}", ".{0,90}"), 0..3);
    let headers =
        (prop::option::of(kind), prop::option::of(name), other).prop_map(|(kind, name, other)| {
            let kind = kind.map(|kind| (":message-type".to_owned(), kind));
            let name = name.map(|name| (":event-type".to_owned(), name));
            let mut headers: Vec<_> = name.into_iter().chain(other).chain(kind).collect();
            let first = usize::from(headers.len() > 2);
            headers.rotate_left(first);
            headers
        });
    (headers, prop::collection::vec(any::<u8>(), 0..200))
}

/// What is to be read of a frame: its kind, name and payload.
type Told = (Kind, Vec<u8>, Vec<u8>);

fn told((headers, payload): &AwsFrame) -> Told {
    let header = |name| headers.iter().find(|header| header.0 == name);
    let kind = match header(":message-type").map(|header| header.1.as_str()) {
        Some("event") => Kind::Event,
        Some("exception") => Kind::Exception,
        Some("error") => Kind::Error,
        _ => Kind::Unknown,
    };
    let name = header(":event-type").filter(|header| kind == Kind::Event && header.1.len() <= 64);
    let name = name.map(|header| header.1.clone()).unwrap_or_default();
    (kind, name.into_bytes(), payload.clone())
}

fn aws_stream(frames: &[AwsFrame]) -> Vec<Vec<u8>> {
    let encode = |(headers, payload): &AwsFrame| {
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        frames::frame(&headers, payload)
    };
    frames.iter().map(encode).collect()
}

/// The frames that came to their end, and whether the stream is broken.
fn read_aws(stream: &[u8], cuts: &[usize]) -> (Vec<Told>, bool) {
    let (mut frames, mut whole, mut open) = (Frames::default(), Vec::new(), None);
    for chunk in chunks(stream, cuts) {
        frames.feed(chunk, &mut |part| match part {
            Part::Begin { kind, name } => open = Some((kind, name.to_vec(), Vec::new())),
            Part::Payload(bytes) => open.as_mut().unwrap().2.extend(bytes),
            Part::End => whole.push(open.take().unwrap()),
        });
    }
    (whole, frames.is_broken())
}

proptest! {
    #[test]
    fn aws_frames_are_read_in_any_chunking_and_whatever_follows_them(
        frames in prop::collection::vec(any_aws_frame(), 0..5), noise in prop::collection::vec(any::<u8>(), 0..40),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let expected: Vec<_> = frames.iter().map(told).collect();
        let stream = aws_stream(&frames).concat();
        prop_assert_eq!(read_aws(&stream, &cuts), (expected.clone(), false));
        let noisy = [stream, noise.clone()].concat();
        prop_assert_eq!(read_aws(&noisy, &cuts), (expected, noise.len() >= 12));
    }

    #[test]
    fn of_damaged_aws_frames_only_those_before_the_damage_end(
        frames in prop::collection::vec(any_aws_frame(), 1..5), at in any::<prop::sample::Index>(),
        damage in prop::array::uniform4(any::<u8>()), cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let frames_read: Vec<_> = frames.iter().map(told).collect();
        let encoded = aws_stream(&frames);
        let mut stream = encoded.concat();
        // A CRC-32 misses so short a burst of wrong bits no more than once in 2^32.
        let at = at.index(stream.len());
        stream.iter_mut().skip(at).zip(damage).for_each(|(byte, damage)| *byte ^= damage);
        prop_assume!(stream != encoded.concat());
        let first = stream.iter().zip(encoded.concat()).position(|(new, old)| *new != old).unwrap();
        let mut end = 0;
        let before = encoded.iter().take_while(|frame| {
            end += frame.len();
            end <= first
        });
        let (read, broken) = read_aws(&stream, &cuts);
        prop_assert_eq!(read.as_slice(), &frames_read[..before.count()]);
        prop_assert!(broken);
    }

    #[test]
    fn any_bytes_come_back_from_base64_and_nothing_else_is_taken(
        bytes in prop::collection::vec(any::<u8>(), 0..80), at in any::<prop::sample::Index>(), wrong in any::<u8>(),
    ) {
        let mut text = frames::base64(&bytes).into_bytes();
        prop_assert_eq!(bursar::base64::decode(&text), Some(bytes));
        if !text.is_empty() && !wrong.is_ascii_alphanumeric() && !b"+/=".contains(&wrong) {
            let at = at.index(text.len());
            text[at] = wrong;
            prop_assert_eq!(bursar::base64::decode(&text), None);
        }
    }
}

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
        for (model, lesson) in seen {
            learned.learn(Model(model), lesson);
        }
        let before = learned.of(Model(model)).answers.expected().0;
        prop_assert!((128..=16_384).contains(&before));
        learned.learn(Model(model), answered(answer));
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
            learned.learn(Model(1), answered(answer));
        }
        prop_assert_eq!(learned.of(Model(1)).answers.expected(), Tokens(answer));
    }
}

fn answered(tokens: u64) -> Lesson {
    Lesson {
        prompt: None,
        answer: Some(Tokens(tokens)),
    }
}

fn any_lesson() -> impl Strategy<Value = Lesson> {
    let prompt = prop::option::of((any_figure(), any_figure().prop_map(Tokens)));
    let answer = prop::option::of(any_figure().prop_map(Tokens));
    (prompt, answer).prop_map(|(prompt, answer)| Lesson { prompt, answer })
}
