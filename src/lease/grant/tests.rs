use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const NOON: u64 = 1_700_000_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(NOON * SECOND + millis * MILLI)
}

fn terms() -> Terms {
    Terms {
        budget: 10_000,
        window: Window {
            start: Timestamp::from_secs(NOON - 3_600),
            end: Timestamp::from_secs(NOON + 3_600),
        },
        least: SECOND,
        most: 10 * SECOND,
        reclaim: None,
        unreachable: Unreachable::Deny,
        cold: Cold::Deny,
    }
}

fn granted(grant: u64, free: u64) -> Answer {
    Answer {
        status: Status::Granted,
        grant,
        total: 10_000 - free,
        free,
        holders: 2,
        now: NOON * 1_000,
        born: 5,
        generation: 0,
        set: 0,
        raise: 0,
    }
}

/// A holder that has sent a line and got an answer with this grant, while this much was free.
fn warm(grant: u64, free: u64) -> Grant {
    let (said, line) = Grant::new(Holder(1)).lacked(grant).say(0, &terms(), at(0));
    said.heard(line.seq, &granted(grant, free)).0
}

// The first request of a process finds no grant, and what the request needs is requested at once.
#[test]
fn a_cold_holder_asks_at_once_for_what_it_lacks() {
    let cold = Grant::new(Holder(1));
    assert!(!cold.is_due(0, &terms(), at(0)));
    assert_eq!(cold.check(0, 300, &terms(), at(0)), Err(NoRoom::Cold));
    let cold = cold.lacked(300).lacked(200);
    assert!(cold.is_due(0, &terms(), at(0)));
    let (said, line) = cold.say(0, &terms(), at(0));
    assert_eq!(
        (line.seq, line.granted, line.used, line.want, line.least),
        (1, 0, 0, 300, 300)
    );
    assert_eq!((line.budget, line.born, line.relearn), (10_000, 0, 24_000));
    assert!(!said.lacked(300).is_due(0, &terms(), at(1_999)));
    let (heard, told) = said.heard(1, &granted(300, 9_000));
    assert_eq!((heard.granted, told), (300, Told::Counts));
    assert_eq!(heard.check(0, 300, &terms(), at(50)), Ok(()));
    assert_eq!(heard.check(1, 300, &terms(), at(50)), Err(NoRoom::Slice));
}

#[test]
fn credit_is_one_reservation_before_the_first_answer() {
    let terms = Terms {
        cold: Cold::Credit,
        ..terms()
    };
    let cold = Grant::new(Holder(1));
    assert_eq!(cold.check(0, 300, &terms, at(0)), Ok(()));
    assert_eq!(cold.check(0, 10_001, &terms, at(0)), Err(NoRoom::Cold));
    assert_eq!(cold.check(300, 1, &terms, at(0)), Err(NoRoom::Cold));
    // What was used without a grant is reported as if it had been granted.
    let (said, line) = cold.took(300).say(300, &terms, at(0));
    assert_eq!((line.granted, line.used), (300, 300));
    let (heard, _) = said.heard(1, &granted(0, 0));
    assert_eq!(
        (heard.granted, heard.check(0, 301, &terms, at(9))),
        (300, Err(NoRoom::Spent))
    );
}

// Other holders give back what they do not use, and operators raise budgets: only a recent answer shows that everything is spent.
#[test]
fn what_was_told_of_the_rest_is_believed_for_a_pause_and_the_time_of_an_answer() {
    let spent = warm(300, 0);
    let room = |grant: Grant, millis| grant.check(300, 1, &terms(), at(millis));
    assert_eq!(room(spent, 12_000), Err(NoRoom::Spent));
    assert_eq!(room(spent, 12_001), Err(NoRoom::Slice));
    let (said, line) = spent.lacked(1).say(300, &terms(), at(12_001));
    assert_eq!(
        room(said.failed(line.seq), 12_002),
        Err(NoRoom::Unreachable)
    );
    let (heard, _) = said.heard(line.seq, &granted(0, 0));
    assert_eq!(room(heard, 12_002), Err(NoRoom::Spent));
}

#[test]
fn only_the_answer_to_the_newest_line_counts_and_once() {
    let (said, first) = Grant::new(Holder(1)).lacked(10).say(0, &terms(), at(0));
    let (said, second) = said.say(0, &terms(), at(2_500));
    assert_eq!(said.failures, 1);
    let (same, told) = said.heard(first.seq, &granted(10, 9_000));
    assert_eq!((same, told), (said, Told::Late));
    let (heard, _) = said.heard(second.seq, &granted(10, 9_000));
    assert_eq!((heard.granted, heard.failures), (10, 0));
    assert_eq!(
        heard.heard(second.seq, &granted(10, 9_000)),
        (heard, Told::Late)
    );
    let rolled = said.rolled();
    assert_eq!(
        rolled.heard(second.seq, &granted(10, 9_000)),
        (rolled, Told::Late)
    );
}

// What a line gives back must not be spent before the store has received the line.
#[test]
fn what_is_given_back_is_gone_before_the_line_leaves() {
    let idle = warm(1_000, 9_000);
    assert!(!idle.is_due(400, &terms(), at(19_999)));
    assert!(idle.is_due(400, &terms(), at(20_000)));
    let (said, line) = idle.say(400, &terms(), at(20_000));
    assert_eq!((line.granted, line.want, said.granted), (400, 0, 400));
    let (quiet, _) = said.heard(line.seq, &granted(0, 9_600));
    assert_eq!(quiet.due(400, &terms(), at(20_010)), None);
    // A request in flight ends, and has used less than it held.
    assert!(quiet.is_due(150, &terms(), at(40_010)));
}

#[test]
fn a_slice_lasts_for_twice_the_longest_pause_while_all_could_have_as_much() {
    // Reservations of 50 add up to 100 a second. Half of an equal part of what is free, for two holders, is 1,500.
    let busy = (0..20).fold(warm(1_000, 6_000), |grant, _| grant.took(50));
    let (said, line) = busy.say(1_000, &terms(), at(10_000));
    assert_eq!((line.granted, line.want, line.least), (1_000, 1_500, 0));
    let (heard, _) = said.heard(line.seq, &granted(1_500, 4_500));
    // A slice of 1,500 lasts 15 s: after half of that the next line is due.
    let next = heard.took(50);
    assert!(!next.is_due(1_000, &terms(), at(10_000 + 7_400)));
    assert!(next.is_due(1_000, &terms(), at(20_000)));
    // Little is free: a slice that lasts for twice the shortest pause is enough, and the rest is given back.
    let end = Grant { free: 100, ..heard };
    let end = (0..20).fold(end, |grant, _| grant.took(50));
    let (_, line) = end.say(1_000, &terms(), at(20_000));
    assert_eq!((line.granted, line.want), (1_200, 0));
}

#[test]
fn refused_requests_ask_again_sooner_and_then_less_and_less_often() {
    let mut grant = warm(0, 0);
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        grant = grant.lacked(100);
        let due = grant.due(0, &terms(), at(now)).unwrap();
        pauses.push(due.since(at(now)).as_millis());
        now = due.since(at(0)).as_millis().try_into().unwrap();
        let (said, line) = grant.say(0, &terms(), at(now));
        grant = said.heard(line.seq, &granted(0, 0)).0;
    }
    assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
    let (said, line) = grant.lacked(100).say(0, &terms(), at(now));
    let (grant, _) = said.heard(line.seq, &granted(100, 0));
    assert_eq!(
        grant.lacked(50).due(60, &terms(), at(now)),
        Some(at(now + 200))
    );
}

#[test]
fn pauses_double_while_calls_fail_and_what_is_here_serves_on() {
    let mut grant = warm(1_000, 5_000);
    let mut pauses = Vec::new();
    let mut now = 1_000;
    for _ in 0..7 {
        let (said, line) = grant.lacked(2_000).say(0, &terms(), at(now));
        grant = said.failed(line.seq).failed(line.seq).failed(line.seq - 1);
        let due = grant.lacked(2_000).due(0, &terms(), at(now)).unwrap();
        pauses.push(due.since(at(now)).as_millis());
        now += 10_000;
    }
    assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000]);
    assert_eq!(grant.check(0, 1_000, &terms(), at(now)), Ok(()));
    assert_eq!(
        grant.check(0, 1_001, &terms(), at(now)),
        Err(NoRoom::Unreachable)
    );
    let terms = Terms {
        unreachable: Unreachable::Local(Ppm(100_000)),
        ..terms()
    };
    // A tenth of the 5,000 that were free, divided by two.
    assert_eq!(grant.limit(0, &terms, at(now)), 1_250);
    assert_eq!(warm(1_000, 5_000).limit(0, &terms, at(now)), 1_000);
    assert_eq!(Grant::new(Holder(1)).limit(0, &terms, at(now)), 0);
}

#[test]
fn with_reclaim_a_holder_that_is_not_heard_stops_before_the_store_takes_its_slice() {
    let terms = Terms {
        reclaim: NonZeroU64::new(60 * SECOND),
        ..terms()
    };
    let grant = warm(1_000, 5_000);
    assert_eq!(grant.check(400, 600, &terms, at(30_000)), Ok(()));
    assert_eq!(grant.check(400, 1, &terms, at(30_001)), Err(NoRoom::Slice));
    let (_, line) = grant.lacked(10).say(400, &terms, at(30_001));
    assert_eq!((line.granted, line.used, line.reclaim), (400, 400, 60_000));
    // The answer to a line shows the state at the time when the line was built, even if the answer arrives late.
    let (said, line) = grant.say(400, &terms, at(20_000));
    let (late, _) = said.heard(line.seq, &granted(50, 5_000));
    assert_eq!(late.check(400, 1, &terms, at(50_001)), Err(NoRoom::Slice));
    // If the clock was set back, it is unknown how old the answer is.
    assert_eq!(
        grant.check(400, 1, &terms, Timestamp::from_secs(NOON - 100)),
        Err(NoRoom::Slice)
    );
}

#[test]
fn what_the_store_says_of_itself_is_told() {
    let (said, line) = warm(10, 90).took(5).say(5, &terms(), at(9_000));
    assert_eq!(line.born, 5);
    let lost = Answer {
        born: 6,
        ..granted(0, 0)
    };
    let (heard, told) = said.heard(line.seq, &lost);
    assert_eq!((heard.granted, heard.born, told), (10, 6, Told::StoreLost));
    let with = |status| {
        said.heard(
            line.seq,
            &Answer {
                status,
                ..granted(0, 0)
            },
        )
    };
    assert_eq!(with(Status::Stale { latest: line.seq }).1, Told::Counts);
    let (clash, told) = with(Status::Stale {
        latest: line.seq + 1,
    });
    assert_eq!((told, clash.failures), (Told::Clash, 1));
    let fresh = clash.renamed(Holder(2), 5);
    assert_eq!(
        (fresh.holder, fresh.granted, fresh.is_cold()),
        (Holder(2), 5, true)
    );
    for status in [Status::TooEarly, Status::TooLate] {
        assert_eq!(with(status), (said.failed(line.seq), Told::OtherWindow));
    }
}

#[test]
fn a_new_window_begins_with_nothing_and_at_once() {
    let (said, old) = warm(1_000, 5_000).took(50).say(50, &terms(), at(5_000));
    let rolled = said.rolled();
    assert_eq!(
        (rolled.granted, rolled.free, rolled.born, rolled.is_cold()),
        (0, 0, 0, true)
    );
    let asks = rolled.lacked(50);
    assert!(asks.is_due(0, &terms(), at(5_001)));
    let (_, line) = asks.say(0, &terms(), at(5_001));
    assert!(line.seq > old.seq);
}

#[test]
fn a_first_request_waits_where_nothing_is_held_and_something_may_be_had() {
    let waits = |grant: Grant, used| grant.awaits_first(used, terms().most, at(2_000));
    assert!(waits(Grant::new(Holder(1)), 0));
    // It holds some, or has given all back.
    assert!(!waits(warm(1_000, 1_000), 999));
    assert!(waits(warm(1_000, 1_000), 1_000));
    let spent = Grant {
        free: 0,
        ..warm(1_000, 1_000)
    };
    assert!(!waits(spent, 1_000));
    assert!(spent.awaits_first(1_000, terms().most, at(20_000)));
    // The store has just had nothing to give, or does not answer.
    let dry = |grant| Grant { dry: 1, ..grant };
    let away = |grant| Grant {
        failures: 1,
        ..grant
    };
    let empty = warm(1_000, 1_000);
    assert!(!waits(dry(empty), 1_000));
    assert!(!waits(away(empty), 1_000) && !waits(away(Grant::new(Holder(1))), 0));
}

#[test]
fn it_is_the_same_from_its_bytes() {
    let (said, _) = warm(1_000, 5_000)
        .took(50)
        .took(40)
        .lacked(70)
        .say(50, &terms(), at(5_000));
    let whole = Grant {
        failures: 3,
        dry: 4,
        ..said.took(3).lacked(9)
    };
    for grant in [Grant::default(), whole, Grant::new(Holder(u64::MAX))] {
        assert_eq!(Grant::from_bytes(&grant.to_bytes()), Some(grant));
    }
}

#[test]
fn absurd_numbers_saturate() {
    let absurd = Terms {
        budget: u64::MAX,
        least: u64::MAX,
        most: u64::MAX,
        reclaim: NonZeroU64::new(u64::MAX),
        ..terms()
    };
    let mut bytes = [0xFF; BYTES];
    // The bytes of the flag and of the padding can have values that are never written.
    assert_eq!(Grant::from_bytes(&bytes), None);
    bytes[BYTES - 2..].copy_from_slice(&[1, 0]);
    let grant = Grant::from_bytes(&bytes).unwrap();
    for now in [at(0), Timestamp::default(), Timestamp::MAX] {
        for used in [0, u64::MAX] {
            assert!(grant.limit(used, &absurd, now) >= used);
            assert!(grant.due(used, &absurd, now).is_some());
            let (said, line) = grant
                .took(u64::MAX)
                .lacked(u64::MAX)
                .say(used, &absurd, now);
            assert_eq!((line.seq, line.budget), (u64::MAX, MOST));
            let all = Answer {
                grant: u64::MAX,
                ..granted(0, 0)
            };
            assert_eq!(said.heard(line.seq, &all).0.granted, u64::MAX);
        }
    }
}
