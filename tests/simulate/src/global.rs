//! Budgets that proxies share: a window of many proxies and tenants in virtual time, with the core's slices in each proxy, and the script
//! in a real Redis or its model.

pub mod figures;
pub mod keeper;
pub mod picture;
pub mod play;
pub mod traffic;

use crate::report::percent;
use crate::tenants::Request;
use crate::trace::HOUR;
use figures::{Fate, Figures, Phase};
use keeper::Keeper;
use traffic::{Trace, World};

/// All worlds: how they are called, and whether a real Redis can keep up.
fn worlds(is_large: bool) -> Vec<(World, bool)> {
    let world = |proxies, tenants, seconds, asked| World {
        proxies,
        tenants,
        of_a_proxy: 20,
        rate: 20,
        seconds,
        asked,
    };
    let mut all = vec![
        (world(10, 10, 3_600, 200), true),
        (world(100, 1_000, 300, 200), true),
        (world(100, 1_000, 300, 90), true),
    ];
    if is_large {
        all.push((world(1_000, 10_000, 120, 200), true));
        all.push((world(10_000, 100_000, 120, 200), false));
    }
    all
}

/// So many of them are in the picture.
pub const DRAWN: usize = 2;

/// The hours of a whole day that are busy: a window of minutes in the night would be another world.
const BUSY: std::ops::Range<u64> = 9 * HOUR..18 * HOUR;

/// A window of a world, and what came of it.
pub struct Played {
    pub world: World,
    /// Whether the store was a real Redis.
    pub is_real: bool,
    /// How many mean reservations an equal part of a budget holds, for half of the tenants at least.
    pub parts: u64,
    pub figures: Figures,
}

/// All of them, with progress: the largest takes minutes.
pub fn played(requests: &[Request], is_large: bool) -> Vec<Played> {
    let trace = busy(requests);
    let worlds = worlds(is_large).into_iter();
    worlds
        .map(|(world, is_real)| one(world, is_real, &trace))
        .collect()
}

fn busy(requests: &[Request]) -> Trace {
    let busy = requests
        .iter()
        .copied()
        .filter(|request| BUSY.contains(&request.row.at));
    Trace::new(&busy.collect::<Vec<_>>())
}

/// A window of a world.
pub fn one(world: World, is_real: bool, trace: &Trace) -> Played {
    let World {
        proxies, tenants, ..
    } = world;
    let routes = world.routes();
    let keeper = if is_real {
        Keeper::real(tenants, play::window())
    } else {
        Keeper::model(tenants)
    };
    let figures = play::play(world, trace, &routes, keeper, |tenth| {
        if tenth.is_multiple_of(2) {
            eprintln!("{proxies} proxies, {tenants} tenants: {tenth}0 %");
        }
    });
    let mut served = vec![0_u64; tenants as usize];
    routes
        .iter()
        .for_each(|route| served[route.tenant as usize] += 1);
    let parts = world.budgets(trace, &routes).into_iter().zip(served);
    let mut parts: Vec<u64> = parts
        .map(|(budget, proxies)| budget / proxies.max(1) / trace.reservation().max(1))
        .collect();
    parts.sort_unstable();
    Played {
        world,
        is_real,
        parts: parts[parts.len() / 2],
        figures,
    }
}

/// What became of budgets and requests, and what it cost the store.
pub fn table(name: &str, all: &[Played]) -> String {
    let mut text = format!(
        "{name}\n
| proxies × tenants | asked, of the budgets | reservations in an equal part | spent | left in slices when the store had none left | left at the end | refused at once with 1 % left | in the end | first slice after: median | 99 % | beyond a budget |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"
    );
    for played in all {
        let figures = &played.figures;
        let [in_slices, at_the_end] = figures.stranded();
        let refused = figures.fates[Fate::RefusedWithRoom as usize];
        text += &format!(
            "| {} | {:.1} × | {} | {} | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {:.0} ms | {:.0} ms | {} |\n",
            title(&played.world),
            played.world.asked as f64 / 100.0,
            played.parts,
            percent(figures.spent, figures.budget),
            in_slices,
            at_the_end,
            100.0 * figures.early_refused as f64 / figures.early.max(1) as f64,
            100.0 * refused as f64 / figures.early.max(1) as f64,
            figures.wait(500),
            figures.wait(990),
            figures.over,
        );
    }
    text += "
| proxies × tenants | asked, of the budgets | store | requests/s | lines/s | in the busiest second | calls/s | lines a call | lines/s of a tenant in a proxy: more than half left | less | a hundredth | Redis: CPU of a line | cores | lines/s of a core | memory |
|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";
    for played in all {
        let figures = &played.figures;
        let (mean, most) = figures.lines_a_second();
        let seconds = figures.seconds() as f64;
        let lines = figures.all_lines();
        let taken = figures.taken.map_or_else(
            || "| | |".to_owned(),
            |taken| {
                let cpu = taken.cpu as f64;
                format!(
                    "{:.0} µs | {:.2} | {:.0} | {:.1} MB",
                    cpu / lines.max(1) as f64,
                    cpu / 1e6 / seconds,
                    lines as f64 / (cpu / 1e6),
                    taken.memory as f64 / 1e6
                )
            },
        );
        text += &format!(
            "| {} | {:.1} × | {} | {:.0} | {mean:.0} | {most} | {:.0} | {:.2} | {} | {} | {} | {taken} |\n",
            title(&played.world),
            played.world.asked as f64 / 100.0,
            if played.is_real { "Redis" } else { "model" },
            figures.asked() as f64 / seconds,
            figures.calls as f64 / seconds,
            lines as f64 / figures.calls.max(1) as f64,
            paced(figures, Phase::Far),
            paced(figures, Phase::Near),
            paced(figures, Phase::Spent),
        );
    }
    text
}

/// Lines a second of a proxy about one of its tenants; `-` for a phase that hardly any of them was in.
fn paced(figures: &Figures, phase: Phase) -> String {
    match figures.active[phase as usize] {
        seconds if seconds < figures.pairs => "-".to_owned(),
        _ => format!("{:.2}", figures.of_a_pair(phase)),
    }
}

/// `1,000 × 10,000`.
pub fn title(world: &World) -> String {
    format!("{} × {}", grouped(world.proxies), grouped(world.tenants))
}

fn grouped(number: u32) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", number / 1_000, number % 1_000),
    }
}

#[cfg(test)]
mod tests;
