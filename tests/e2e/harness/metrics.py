"""Envoy's /stats/prometheus, parsed."""

import re

LINE = re.compile(r'^(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse(text):
    """{(name, frozenset of (label, value)): number}"""
    found = {}
    for line in text.splitlines():
        match = LINE.match(line)
        if match:
            labels = frozenset(LABEL.findall(match["labels"] or ""))
            found[match["name"], labels] = float(match["value"])
    return found


def total(metrics, name, **labels):
    """The sum over all series of `name` that have these labels; 0 if there is none."""
    wanted = set(labels.items())
    return sum(value for (key, have), value in metrics.items() if key == name and wanted <= have)
