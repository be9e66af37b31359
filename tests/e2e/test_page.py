"""The operators' page in a real Chromium. With PICTURES=folder it is drawn there (`make pictures`)."""

import os
import re
import urllib.request
from pathlib import Path

import pytest

from harness import chromium
from harness.config import BY_HEADER, budget
from harness.wait import until
from test_overview import port_of, with_report

pytestmark = pytest.mark.skipif(not chromium.is_there(), reason="Chromium is neither on PATH nor was to be had: see the Makefile")

TIERS = [{"name": "default", "model": "gpt-4o", "price": {"input": 2.5, "output": 10}},
         {"name": "compact", "model": "gpt-4o-mini", "price": {"input": 0.15, "output": 0.6}, "below": 0.3}]
PLANS = {"gold": {"budget": budget(40_000, "day")}, "money": {"budget": budget(5, "month", "usd")}, "small": {"budget": budget(12_000, "day")},
         "both": {"limits": [{"name": "hour", "budget": budget(2_000, "hour")}, {"name": "month", "budget": budget(90_000, "month")}]}}
TENANTS = {"acme": {"plan": "gold"}, "globex": {"plan": "money"}, "initech": {"plan": "small"}, "umbrella": {"plan": "both"}}
USED = {"acme": (9_000, 3_000), "globex": (200_000, 90_000), "initech": (8_000, 1_500), "umbrella": (700, 200)}

NAMES = "[...document.querySelectorAll('tbody tr')].filter(row => !row.hidden).map(row => row.cells[0].textContent)"


@pytest.fixture(scope="module")
def rig(start_rig):
    rig = start_rig({"tenant": BY_HEADER, "tiers": TIERS, "plans": PLANS, "tenants": TENANTS}, change=with_report)
    for tenant, usage in USED.items():
        assert rig.chat(tenant, usage=usage).status == 200
        rig.chat(tenant, usage=(40, 20))
    assert rig.chat("stranger").status == 403
    until(lambda: "tenant_unknown" in report(rig), "the counters to be noted")
    return rig


def report(rig):
    with urllib.request.urlopen(address(rig)) as page:
        return page.read().decode()


@pytest.fixture
def browser():
    with chromium.Browser() as browser:
        yield browser


def address(rig):
    return f"http://127.0.0.1:{port_of(rig)}/"


def test_rows_are_sorted_by_a_head_and_filtered_by_a_word(rig, browser):
    browser.open(address(rig))
    assert set(TENANTS) <= set(browser.run(NAMES))
    head = "document.querySelector('th')"
    browser.run(f"{head}.click()")
    once = browser.run(NAMES)
    browser.run(f"{head}.click()")
    assert once != browser.run(NAMES) and sorted(once) == sorted(browser.run(NAMES))
    browser.run("{const box = document.querySelector('#filter'); box.value = 'GLOB'; box.dispatchEvent(new Event('input'))}")
    assert set(browser.run(NAMES)) == {"globex"}
    assert browser.complaints() == []


def test_without_script_the_table_is_there_and_nothing_that_would_not_work(rig, browser):
    browser.allow_scripts(False)
    browser.open(address(rig))
    assert set(TENANTS) <= set(browser.run(NAMES))
    assert browser.run("document.querySelector('#filter').hidden") and browser.complaints() == []


def test_it_is_light_or_dark_as_its_reader_prefers(rig, browser):
    shown = {}
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        browser.open(address(rig), width=1280, height=640)
        # The background is the browser's own, and so is the text's colour.
        colour = browser.run("getComputedStyle(document.body).color")
        is_dark_text = sum(map(int, re.findall(r"\d+", colour)[:3])) < 3 * 128
        assert is_dark_text == (scheme == "light"), colour
        shown[scheme] = browser.picture()
        if folder := os.environ.get("PICTURES"):
            (Path(folder) / f"report-{scheme}.png").write_bytes(shown[scheme])
    assert shown["light"] != shown["dark"]


@pytest.mark.parametrize("scripts", [True, False])
def test_a_tenant_is_found_among_all_pages(start_rig, browser, scripts):
    tenants = {f"Team {n}": {"budget": budget(1_000, "day")} for n in range(2_500)}
    rig = start_rig({"tenant": BY_HEADER, "tiers": TIERS, "tenants": tenants}, change=with_report)
    browser.allow_scripts(scripts)
    browser.open(address(rig))
    assert "Team 2499" not in browser.run(NAMES)
    browser.leave("{document.querySelector('[name=find]').value = 'team 249'; document.querySelector('form button').click()}")
    expected = {"Team 249", *(f"Team {n}" for n in range(2_490, 2_500))}
    until(lambda: set(browser.run(NAMES)) == expected, "the form's answer")
    assert browser.complaints() == []
    if scripts and (folder := os.environ.get("PICTURES")):
        (Path(folder) / "find.png").write_bytes(browser.picture())


def test_a_thousand_tenants_are_drawn(start_rig, browser):
    tenants = {f"t{n}": {"budget": budget(1_000, "day")} for n in range(1_000)}
    rig = start_rig({"tenant": BY_HEADER, "tiers": TIERS, "tenants": tenants}, change=with_report)
    browser.open(address(rig))
    assert len(set(browser.run(NAMES)) & tenants.keys()) == 1_000
    took = browser.run("(page => page.loadEventEnd - page.startTime)(performance.getEntriesByType('navigation')[0])")
    print(f"{took:.0f} ms from the request until all is drawn")
