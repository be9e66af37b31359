//! Traces of LLM requests: read from a CSV or made up, and brought to the length of a day.

use crate::draw::Draw;

pub const SECOND: u64 = 1_000_000_000;
pub const HOUR: u64 = 3_600 * SECOND;
pub const DAY: u64 = 24 * HOUR;

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Nanoseconds since the trace's first request, or since midnight.
    pub at: u64,
    pub prompt: u64,
    pub output: u64,
}

/// How busy each hour is, in percent of the busiest.
const HOURS: [u64; 24] = [
    22, 16, 12, 10, 10, 14, 22, 38, 62, 85, 97, 100, 92, 90, 98, 100, 96, 86, 74, 66, 60, 50, 40,
    30,
];

/// A trace of at least this length is a day already.
const LONG: u64 = 20 * HOUR;

// --- made up -----------------------------------------------------------------

/// Most requests in a million seconds, but for bursts.
const BUSIEST: u64 = 320_000;
const BURSTS: u64 = 14;
/// How many times more requests a burst has.
const BURST: u64 = 3;

/// Prompts and answers in tokens, by twentieths: most are short, some are not. As they are in public traces of conversations, and
/// no one's in particular.
const PROMPTS: [u64; 21] = [
    12, 60, 110, 170, 240, 320, 410, 520, 650, 790, 930, 1_070, 1_210, 1_350, 1_500, 1_700, 2_000,
    2_500, 3_200, 4_100, 7_800,
];
const ANSWERS: [u64; 21] = [
    3, 14, 24, 36, 50, 66, 84, 104, 128, 154, 182, 212, 244, 280, 318, 358, 400, 446, 520, 660,
    1_400,
];

/// A day of our own: quiet at night, busy at noon and in the afternoon, with bursts of some minutes.
pub fn synthetic() -> Vec<Row> {
    let mut draw = Draw::new(24);
    let bursts: Vec<(u64, u64)> = (0..BURSTS)
        .map(|_| {
            let start = draw.below(86_400);
            (start, start + 240 + draw.below(600))
        })
        .collect();
    let mut rows = Vec::new();
    for second in 0..86_400 {
        let at = second * SECOND;
        let bursts = bursts
            .iter()
            .any(|&(start, end)| (start..end).contains(&second));
        let chance = BUSIEST * busy(at) / 1_000 * if bursts { BURST } else { 1 };
        if draw.below(1_000_000) < chance {
            rows.push(Row {
                at: at + draw.below(SECOND),
                prompt: draw.quantile(&PROMPTS),
                output: draw.quantile(&ANSWERS),
            });
        }
    }
    rows
}

/// How busy it is at a time of the day, in thousandths, from each hour to the next in a straight line.
fn busy(at: u64) -> u64 {
    let hour = (at / HOUR) as usize;
    let (from, to) = (HOURS[hour % 24], HOURS[(hour + 1) % 24]);
    let into = at % HOUR / SECOND;
    10 * (from * (3_600 - into) + to * into) / 3_600
}

// --- read --------------------------------------------------------------------

/// The rows of a CSV with the columns `TIMESTAMP,ContextTokens,GeneratedTokens`, by time.
pub fn read(text: &str) -> Result<Vec<Row>, String> {
    let mut lines = text.lines().map(|line| line.trim_end_matches('\r'));
    let head: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let column = |name| {
        let found = head.iter().position(|&column| column == name);
        found.ok_or_else(|| format!("the first line has no column {name}"))
    };
    let columns = [
        column("TIMESTAMP")?,
        column("ContextTokens")?,
        column("GeneratedTokens")?,
    ];
    let mut rows = Vec::new();
    for (number, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        let cells: Vec<&str> = line.split(',').collect();
        let [at, prompt, output] = columns.map(|column| cells.get(column).copied());
        let row = (|| {
            Some(Row {
                at: timestamp(at?)?,
                prompt: prompt?.parse().ok()?,
                output: output?.parse().ok()?,
            })
        })();
        rows.push(row.ok_or_else(|| format!("line {}: {line}", number + 2))?);
    }
    rows.sort_unstable();
    let first = rows.first().ok_or("it has no rows")?.at;
    Ok(rows
        .into_iter()
        .map(|row| Row {
            at: row.at - first,
            ..row
        })
        .collect())
}

/// Days from 1 March of the year 0 to the first of 1970.
const BEFORE_1970: u64 = 719_469;

/// Nanoseconds of `2023-11-16 18:17:03.9799600` since 1970, by a calendar in which March is the first month.
fn timestamp(text: &str) -> Option<u64> {
    let (date, time) = text.trim_end_matches("+00:00").split_once([' ', 'T'])?;
    let mut parts = date.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let year = if month < 3 {
        year.checked_sub(1)?
    } else {
        year
    };
    let month = (month + 9) % 12;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    let days = days
        .checked_sub(BEFORE_1970)
        .filter(|&days| days < 200 * 365)?;
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = seconds.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let fraction = format!("{fraction:0<9}").get(..9)?.parse::<u64>().ok()?;
    Some(((days * 24 + hour) * 3_600 + minute * 60 + second) * SECOND + fraction)
}

/// A day of the trace. One of almost a day or more is cut after the first day. A shorter one is repeated end to end, and of each
/// hour only a part is kept: as many requests, drawn at random, as that hour of [`HOURS`] is busy. So what lies within minutes
/// is the trace's, and the day is ours.
pub fn over_a_day(rows: &[Row]) -> Vec<Row> {
    let length = rows.last().map_or(0, |row| row.at) + SECOND;
    if length >= LONG {
        return rows.iter().copied().filter(|row| row.at < DAY).collect();
    }
    let mut draw = Draw::new(7);
    let laps = (0..DAY).step_by(length as usize);
    laps.flat_map(|lap| {
        rows.iter().map(move |row| Row {
            at: lap + row.at,
            ..*row
        })
    })
    .filter(|row| row.at < DAY)
    .filter(|row| draw.below(1_000) < busy(row.at))
    .collect()
}
