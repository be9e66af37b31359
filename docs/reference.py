#!/usr/bin/env python3
"""Writes the reference tables of docs/configuration.md from envoy/plugin-config.schema.json, between the page's two marks.

    docs/reference.py            writes the page anew
    docs/reference.py --check    fails if it is not current
"""

import json
import re
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE / "configuration.md"
SCHEMA = HERE.parent / "envoy" / "plugin-config.schema.json"
BEGIN = "<!-- begin: written by docs/reference.py from envoy/plugin-config.schema.json -->"
END = "<!-- end -->"
COLUMNS = 120
LONGEST_LIST = 120   # characters of a cell; what each word means is listed below the table


class Reference:
    """Sections of the page: an object's keys each, and every object once, where it is met first."""

    def __init__(self, schema):
        self.definitions = schema.get("$defs", {})
        self.places = {}   # name of a definition -> the path under which its keys are listed
        self.pending = []
        self.lines = []
        self.section("Top level", "", schema)
        while self.pending:
            path, definition = self.pending.pop(0)
            self.section(f"`{path}`", path, definition)

    # --- reading the schema ---

    def resolved(self, value):
        """(the definition's name or None, what it says), without the `null` beside an optional value."""
        if "$ref" in value:
            name = value["$ref"].rsplit("/", 1)[1]
            return name, self.definitions[name]
        options = [option for option in value.get("anyOf", []) if option.get("type") != "null"]
        return self.resolved(options[0]) if len(options) == 1 else (None, value)

    def kind(self, value, path):
        """What may stand there, in a word or two; objects are listed in a section of their own."""
        name, value = self.resolved(value)
        if "anyOf" in value:
            options = [self.resolved(option)[1] for option in value["anyOf"]]
            return ", ".join(self.choice(option, path) if "properties" in option else self.kind(option, path) for option in options)
        if "oneOf" in value:
            return ", ".join(self.choice(option, path) for option in value["oneOf"])
        kinds = value.get("type")
        kind = next(each for each in kinds if each != "null") if isinstance(kinds, list) else kinds
        if kind == "array":
            entries = self.kind(value["items"], path + "[]")
            return f"list of {entries if len(entries) <= LONGEST_LIST else 'the words below'}"
        if kind == "object" and "properties" in value:
            return self.object(name, value, path)
        if kind == "object":
            return f"{self.kind(value['additionalProperties'], path + '.*')} by name"
        return {"string": "text", "boolean": "true, false"}.get(kind, kind)

    def object(self, name, value, path):
        known = self.places.get(name) if name else None
        if known is None:
            self.places[name or path] = path
            self.pending.append((path, value))
            known = path
        return f"[object](#{anchor(known)})"

    def choice(self, option, path):
        if "const" in option:
            return f"`{option['const']}`"
        (key, value), = option["properties"].items()
        _, inner = self.resolved(value)
        if "properties" in inner:
            shown = ", ".join(f'"{each}": …' for each in inner["properties"])
            return f'`{{"{key}": {{{shown}}}}}`'
        shown = {"string": "text", "boolean": "true", "array": "[…]"}.get(inner.get("type"), "…")
        return f'`{{"{key}": {shown}}}`'

    # --- writing ---

    def section(self, title, path, value):
        rows, notes = [], []
        properties = dict(value["properties"])
        shared = self.shared_with(value)
        for key in shared:
            del properties[key]
        for key, about in properties.items():
            sentences, default = split(about.get("description", ""))
            if key in value.get("required", []):
                default = "required"
            if not default and isinstance(about.get("default"), bool):
                default = f"`{str(about['default']).lower()}`"
            kind = self.kind(about, f"{path}.{key}" if path else key)
            rows.append(f"| `{key}` | {kind} | {default} | {first(sentences)} |")
            notes += [f"- `{key}`: {' '.join(sentences[1:])}"] * bool(sentences[1:])
            notes += self.choices(key, about)
        self.lines += ["", f"### {title}", ""]
        if path and value.get("description"):
            self.lines += [*wrapped(" ".join(value["description"].split())), ""]
        self.lines += ["| key | values | default | |", "|---|---|---|---|", *rows]
        if shared:
            self.lines += ["", *wrapped(f"And every key of [`plans.*`](#{anchor('plans.*')}); they replace the plan's.")]
        if notes:
            self.lines += [""] + [line for note in notes for line in wrapped(note)]

    def shared_with(self, value):
        """The keys of a tenant that are a plan's."""
        plan = next((definition for name, definition in self.definitions.items() if self.places.get(name) == "plans.*"), None)
        is_tenant = plan is not None and value is not plan and set(plan["properties"]) <= set(value["properties"])
        return list(plan["properties"]) if is_tenant else []

    def choices(self, key, about):
        """What each word of a list of words means."""
        _, value = self.resolved(about)
        if value.get("type") == "array" or "array" in (value.get("type") or []):
            _, value = self.resolved(value["items"])
        lines = []
        for option in value.get("oneOf", []):
            if option.get("description"):
                lines.append(f"- `{key}`, {self.choice(option, key)}: {' '.join(option['description'].split())}")
        return lines


def anchor(path):
    """GitHub's anchor of the heading that has this path in it."""
    return re.sub(r"[^a-z0-9_ -]", "", path.lower()).replace(" ", "-")


def split(description):
    """(sentences, default): `Default: …` and `Required …` stand in a column of their own."""
    sentences = re.split(r"(?<=\.)\s+(?=[A-Z`(])", " ".join(description.split()))
    default, kept = "", []
    for sentence in filter(None, sentences):
        if found := re.match(r"Default:? (.*)\.$", sentence):
            value = found[1]
            default = value if " " in value or value.startswith("`") else f"`{value}`"
        elif sentence.startswith("Required"):
            default = "required"
        else:
            kept.append(sentence)
    return kept, default


def first(sentences):
    return sentences[0].replace("|", "\\|") if sentences else ""


def wrapped(text):
    return textwrap.wrap(text, COLUMNS, subsequent_indent="  " if text.startswith("- ") else "", break_long_words=False,
                         break_on_hyphens=False)


def page(text, schema):
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    tables = "\n".join(Reference(schema).lines)
    return f"{before}{BEGIN}\n{tables}\n\n{END}{after}"


def main():
    text = PAGE.read_text(encoding="utf-8")
    fresh = page(text, json.loads(SCHEMA.read_text(encoding="utf-8")))
    if "--check" in sys.argv[1:]:
        if fresh != text:
            sys.exit(f"{PAGE.name} is not current: run docs/reference.py")
    else:
        PAGE.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
