"""The rooms of src/: few, small, and none uses one above it."""

import re
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
# From the bottom to the top, as lib.rs lists them.
ROOMS = re.findall(r"^(?:pub )?mod (\w+);", (SRC / "lib.rs").read_text(), re.M)


def test_the_rooms_are_those_that_lib_rs_lists():
    assert len(ROOMS) <= 26
    assert {path.stem for path in SRC.iterdir()} == {*ROOMS, "lib"}


def test_no_room_uses_one_above_it():
    up = set()
    for path in SRC.rglob("*.rs"):
        room = path.relative_to(SRC).parts[0].removesuffix(".rs")
        if room == "lib" or "tests" in path.name:
            continue
        code = path.read_text().partition("#[cfg(test)]\nmod tests {")[0]
        code = re.sub(r"//.*", "", code)
        used = set(re.findall(r"\bcrate::(\w+)", code)) | {
            name for group in re.findall(r"\bcrate::\{(.*?)\};", code, re.S) for name in re.findall(r"(?:^|,)\s*(\w+)", group)
        }
        up |= {(str(path.relative_to(SRC)), other) for other in used & set(ROOMS) if ROOMS.index(other) > ROOMS.index(room)}
    assert not up


def test_no_source_file_is_longer_than_a_reader_can_hold():
    long = {str(path.relative_to(SRC)): lines for path in SRC.rglob("*.rs") if (lines := len(path.read_text().splitlines())) > 500}
    assert set(long) <= {"calendar/zone/table.rs"}   # which is generated
