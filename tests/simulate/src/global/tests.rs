use super::figures::Asked;
use super::*;
use crate::tenants;
use crate::trace;

const SMALL: World = World {
    proxies: 4,
    tenants: 6,
    of_a_proxy: 3,
    rate: 20,
    seconds: 120,
    asked: 200,
};

fn requests() -> Vec<Request> {
    tenants::spread(&trace::synthetic())
}

fn trace() -> Trace {
    Trace::new(&requests())
}

#[test]
fn the_real_script_and_its_model_give_the_same_window() {
    let trace = trace();
    let [mut real, model] = [true, false].map(|is_real| one(SMALL, is_real, &trace).figures);
    assert!(real.taken.take().is_some_and(|taken| taken.cpu > 0));
    assert_eq!(real, model);
}

#[test]
fn each_request_has_one_end_and_no_budget_is_overspent() {
    let trace = trace();
    let routes = SMALL.routes();
    let mut came = 0;
    let mut used = 0;
    for proxy in 0..SMALL.proxies {
        for (at, ask, _) in SMALL.requests(proxy, &trace, &routes) {
            if at >= SMALL.seconds * trace::SECOND {
                break;
            }
            came += 1;
            used += ask.used;
        }
    }
    let figures = one(SMALL, false, &trace).figures;
    assert_eq!(figures.asked(), came);
    assert_eq!(
        figures.bars.iter().flatten().sum::<u64>() + figures.too_large,
        came
    );
    // Half of what is asked for, but for a token that does not divide by two.
    let budgets = SMALL.budgets(&trace, &routes);
    assert!(used / 2 - budgets.iter().sum::<u64>() <= u64::from(SMALL.tenants));
    assert_eq!(figures.budget, budgets.iter().sum::<u64>());
    assert_eq!(figures.over, 0);
    assert!(figures.spent <= figures.granted && figures.granted <= figures.budget);
    assert_eq!(figures.bar_lines.iter().sum::<u64>(), figures.all_lines());
    assert!(
        figures
            .bar_left
            .is_sorted_by(|one, other| one + 100_000 >= *other)
    );
}

// By hand: two budgets, of 100 and of 300 tokens, in 144 seconds, so that a bar is two seconds.
#[test]
fn figures_are_what_was_counted() {
    let world = World {
        seconds: 144,
        ..SMALL
    };
    let second = trace::SECOND;
    let mut figures = Figures::new(&world, &[100, 300]);
    for (fate, first, early) in [
        (Fate::Served, 1, true),
        (Fate::ServedLater, 2, true),
        (Fate::RefusedWithRoom, 3, true),
        (Fate::RefusedSpent, 143, false),
    ] {
        figures.came(Asked::Became(fate), first * second, early);
    }
    figures.came(Asked::TooLarge, 0, true);
    assert_eq!((figures.asked(), figures.too_large), (5, 1));
    assert_eq!((figures.early, figures.early_refused), (3, 2));
    assert_eq!(figures.bars[0], [1, 0, 0, 0]);
    assert_eq!(figures.bars[1], [0, 1, 1, 0]);
    assert_eq!(figures.bars[71], [0, 0, 0, 1]);
    figures.active(Phase::Far);
    figures.active(Phase::Far);
    for at in [0, 1, 1, 5] {
        figures.line(Phase::Far, at * second);
    }
    figures.line(Phase::Near, 5 * second);
    assert_eq!(
        (figures.of_a_pair(Phase::Far), figures.all_lines()),
        (0.2, 5)
    );
    assert_eq!(figures.lines_a_second(), (5.0 / 144.0, 2));
    assert_eq!(figures.bar_lines[..3], [3, 0, 2]);
    for millis in [40, 10, 20, 30] {
        figures.waited(millis * second / 1_000);
    }
    figures.passed(2 * second, &[50, 0]);
    figures.empty(1, 30);
    figures.empty(1, 0);
    let used = [100, 297];
    figures.end(397, |tenant| used[tenant], &[100, 300], &Keeper::model(2));
    assert_eq!(
        (figures.bar_left[0], figures.bar_left[71]),
        (875_000, 7_500)
    );
    assert_eq!(figures.stranded(), [10.0, 1.0]);
    assert_eq!(
        [0, 500, 990].map(|part| figures.wait(part)),
        [10.0, 30.0, 40.0]
    );
    assert_eq!((figures.spent, figures.granted, figures.over), (397, 0, 0));
}

#[test]
fn each_tenant_has_a_proxy_and_none_is_twice_in_one() {
    let world = World {
        proxies: 30,
        tenants: 200,
        of_a_proxy: 20,
        ..SMALL
    };
    let routes = world.routes();
    assert_eq!(routes.len(), 30 * 20);
    for tenant in 0..200 {
        assert!(
            routes.iter().any(|route| route.tenant == tenant),
            "{tenant}"
        );
    }
    for own in routes.chunks(20) {
        let mut own: Vec<u32> = own.iter().map(|route| route.tenant).collect();
        own.sort_unstable();
        own.dedup();
        assert_eq!(own.len(), 20);
    }
    // By Zipf's law the first one is in most of them.
    let first = routes.iter().filter(|route| route.tenant == 0).count();
    assert!(first > 20, "{first}");
}

#[test]
fn a_proxy_plays_the_trace_as_fast_as_its_rate_says_whatever_the_trace_is() {
    let trace = trace();
    let routes = SMALL.routes();
    let laps = trace.laps(SMALL.rate);
    let world = World {
        seconds: laps,
        ..SMALL
    };
    for proxy in 0..SMALL.proxies {
        let within = world.requests(proxy, &trace, &routes);
        let count = within
            .take_while(|(at, ..)| *at < laps * trace::SECOND)
            .count() as u64;
        // All of the trace, from wherever it begins, but for the part of a second that a lap does not end on.
        assert!(
            count.abs_diff(laps * SMALL.rate) <= 2 * SMALL.rate,
            "{count}"
        );
    }
}

// The requirement is about ten proxies and about budgets that can be cut: a hundredth of a budget has to hold requests for each of them.
#[test]
fn ten_proxies_spend_all_and_refuse_almost_nothing_while_a_hundredth_is_left() {
    let figures = &drawn()[0].figures;
    assert!(figures.spent * 100 >= figures.budget * 99);
    assert!(figures.early_refused * 1_000 <= figures.early * 5);
    assert!(figures.of_a_pair(Phase::Far) <= 0.2);
    assert_eq!(figures.over, 0);
    // A tick, and the store's millisecond.
    assert!(figures.wait(1_000) <= 51.0);
}

/// What the picture shows, with the model in the place of the Redis.
fn drawn() -> &'static [Played] {
    static PLAYED: std::sync::OnceLock<Vec<Played>> = std::sync::OnceLock::new();
    PLAYED.get_or_init(|| {
        let trace = busy(&requests());
        let worlds = worlds(false).into_iter().take(DRAWN);
        worlds.map(|(world, _)| one(world, false, &trace)).collect()
    })
}

#[test]
fn the_committed_picture_of_shared_budgets_is_what_is_drawn() {
    let is_so = include_str!("../../global.svg") == picture::draw(drawn());
    assert!(
        is_so,
        "make simulate ARGS=--global, look at it, and: cp target/simulate/day-global.svg tests/simulate/global.svg"
    );
}
