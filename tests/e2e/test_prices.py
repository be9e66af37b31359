"""The prices of the examples that are shipped are those of the catalogue that `make prices` prints."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "envoy" / "prices.py"

if sys.version_info < (3, 11):
    pytest.skip("the package genai-prices needs Python 3.11", allow_module_level=True)
sys.path.insert(0, str(SCRIPT.parent))
import prices  # noqa: E402

SHIPPED = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("envoy/*.yaml")), *sorted(ROOT.glob("istio/*.yaml"))]
# A tier whose model is followed by its price, before the tier ends.
PRICED = re.compile(r'"model":\s*"([^"]+)"[^{}]*"price":\s*(?=\{)')


def priced(path):
    """(model, price) of all tiers in a file."""
    text = path.read_text()
    for found in PRICED.finditer(text):
        price, _ = json.JSONDecoder().raw_decode(text, found.end())
        yield found.group(1), price


def cases():
    return [pytest.param(model, price, id=f"{path.relative_to(ROOT)}-{model}") for path in SHIPPED for model, price in priced(path)]


def test_there_are_examples_with_prices():
    files = {case.id.split("-")[0] for case in cases()}
    assert {"README.md", "docs/configuration.md", "envoy/envoy.yaml", "istio/envoyfilter.yaml"} <= files


@pytest.mark.parametrize("model,price", cases())
def test_an_example_has_the_catalogues_price(model, price):
    [known] = {json.dumps(prices.price(found)) for _, found in prices.find(model)}
    known = json.loads(known)
    assert price == {key: known[key] for key in price}


def run(*arguments):
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


def test_what_is_printed_are_tiers_with_their_prices_and_what_is_missing_is_told():
    done = run("gpt-4.1-mini", "claude-haiku-*", "no-such-model")
    printed = {tier["model"]: tier["price"] for tier in map(json.loads, done.stdout.splitlines())}
    assert printed["gpt-4.1-mini"]["input"] == 0.4 and "cache_write_1h" in printed["claude-haiku-5-5"]
    assert "genai-prices 0.2.3, prices of 2026-11-29" in done.stderr
    assert "no price of `no-such-model`" in done.stderr and done.returncode == 1
    assert run("gpt-4.1-mini").returncode == 0


def test_the_price_of_another_provider_can_be_asked_for():
    printed = run("openai.gpt-5.4", "--provider", "aws").stdout
    assert json.loads(printed)["model"] == "openai.gpt-5.4"
    assert run("openai.gpt-5.4").returncode == 1
