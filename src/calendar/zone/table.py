#!/usr/bin/env python3
"""Writes table.rs, the time zones as budgets need them, from the package `tzdata` (the IANA time zone database).

    make zones

What clocks showed before FIRST is left out: a budget's window is always one that is open now.
"""

import re
import struct
import sys
from collections import defaultdict
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path

import tzdata

# The database is a year old at the most when a module is built with it.
FIRST = int(datetime(int(tzdata.IANA_VERSION[:4]) - 1, 1, 1, tzinfo=timezone.utc).timestamp())
COLUMNS = 100

RULE = re.compile(r"M(\d+)\.(\d)\.(\d)(?:/(-?[\d:]+))?$")
OFFSET = r"(?:<[^>]+>|[A-Za-z]+)(-?[\d:]+)?"
FOOTER = re.compile(rf"{OFFSET}(?:{OFFSET},([^,]+),([^,]+))?$")


def seconds(text):
    """[-]hours[:minutes] in seconds."""
    hours, _, minutes = text.lstrip("-").partition(":")
    return (int(hours) * 3600 + int(minutes or 0) * 60) * (-1 if text.startswith("-") else 1)


def change(text):
    month, week, weekday, at = RULE.match(text).groups()
    # A year of `Zone::span` ends with February: no change may be near that.
    assert (3, 2) <= (int(month), int(week)) and int(month) <= 12, text
    return f"on({int(month)}, {week}, {weekday}, {seconds(at or '2')})"


def clocks(footer):
    """The rule for all years to come, as a call of a function in zone.rs, and the offsets that it may give."""
    standard, summer, begins, ends = FOOTER.match(footer).groups()
    standard = -seconds(standard)
    if begins is None:
        return f"always({standard})"
    summer = standard + 3600 if summer is None else -seconds(summer)
    return f"changing({standard}, {summer}, {change(begins)}, {change(ends)})"


def read(name):
    """When the zone's clocks change from FIRST on, to which offset, by the file's list; and its rule for later."""
    data = files("tzdata").joinpath("zoneinfo", name).read_bytes()

    def counts(start):
        assert data[start:start + 4] == b"TZif", name
        return struct.unpack(">6L", data[start + 20:start + 44])

    utc, standard, leaps, times, types, letters = counts(0)
    # The second part has times of 64 bits.
    start = 44 + times * 5 + types * 6 + letters + leaps * 8 + standard + utc
    utc, standard, leaps, times, types, letters = counts(start)
    start += 44
    moments = struct.unpack(f">{times}q", data[start:start + 8 * times])
    start += 8 * times
    kinds = data[start:start + times]
    start += times
    offsets = [struct.unpack(">lBB", data[start + 6 * at:start + 6 * at + 6])[0] for at in range(types)]
    start += 6 * types + letters + leaps * 12 + standard + utc
    changes = [(moment, offsets[kind]) for moment, kind in zip(moments, kinds)]
    earlier = [offset for moment, offset in changes if moment <= FIRST] or offsets[:1]
    listed = [(FIRST, earlier[-1])]
    for moment, offset in changes:
        if moment > FIRST and offset != listed[-1][1]:
            listed.append((moment, offset))
    rule = clocks(data[start:].decode().strip())
    return tuple(listed) if len(listed) > 1 else (), rule


def text(names):
    """Names as a string of several lines."""
    lines, line = [], ""
    for name in names:
        if len(line) + len(name) > COLUMNS - 12:
            lines.append(line)
            line = ""
        line += name + " "
    lines.append(line.rstrip())
    return '"\\\n         ' + "\\\n         ".join(lines) + '"'


def lists(moments):
    lines, line = [], "   "
    for moment, offset in moments:
        item = f" ({moment}, {offset}),"
        if len(line) + len(item) > COLUMNS:
            lines.append(line)
            line = "   "
        line += item
    return "\n".join([*lines, line])


def main():
    zones = defaultdict(list)
    for name in files("tzdata").joinpath("zones").read_text().split():
        if name != "Factory":   # what a computer has before it is told where it is
            zones[read(name)].append(name)
    known, named = {}, []
    for (listed, rule), names in sorted(zones.items(), key=lambda item: min(item[1])):
        if listed and listed not in known:
            known[listed] = re.sub("[^A-Z]+", "_", min(names).upper())
        call = f"{rule}.after(&{known[listed]})" if listed else rule
        named.append(f"    ({text(sorted(names))},\n     {call}),\n")
    out = [
        "//! The time zones of the IANA database, written by `make zones`: those with the same clocks together.\n\n",
        "use super::{Zone, always, changing, on};\n\n",
        f'/// The release of the database.\n#[cfg(all(test, not(target_arch = "wasm32")))]\npub(super) const RELEASE: &str = "{tzdata.IANA_VERSION}";\n\n',
        f"/// What clocks showed before is left out.\n#[cfg(all(test, not(target_arch = \"wasm32\")))]\npub(super) const FIRST: u64 = {FIRST};\n\n",
        "/// Names, and what the clocks show there.\n#[rustfmt::skip]\n",
        f"pub(super) static ZONES: [(&str, Zone); {len(named)}] = [\n", *named, "];\n",
    ]
    for moments, constant in known.items():
        out.append(f"\n#[rustfmt::skip]\nstatic {constant}: [(u32, i32); {len(moments)}] = [\n{lists(moments)}\n];\n")
    Path(__file__).with_name("table.rs").write_text("".join(out))


if __name__ == "__main__":
    sys.exit(main())
