"""The models that the shipped examples name are served: by the lists in the SDKs that are installed, which say what ends when."""

import re
import warnings
from typing import get_args

import anthropic.resources.messages.messages as of_anthropic
import anthropic.types.model
import openai.types.shared.chat_model as of_openai
import pytest

from harness.envoy import ROOT

EXAMPLES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "envoy").glob("*.yaml")), *sorted((ROOT / "istio").glob("*.yaml"))]
MODEL = re.compile(r'"model": "((?:gpt|claude|o\d)-[\w.-]+)"')
IN_ANTHROPICS_LIST = {name for part in get_args(anthropic.types.model.Model) for name in get_args(part)}
IN_OPENAIS_LIST = set(get_args(of_openai.ChatModel))


def ending():
    """Models whose end is announced, and how."""
    source = open(of_openai.__file__).read()
    _, _, notes = source.partition('"""Deprecated values:')
    of_openais = {}
    for note in re.split(r"\n- ", notes)[1:]:
        names, _, what = note.partition("\":")
        for name in re.findall(r'"([^"]+)"', names + '"'):
            of_openais[name] = " ".join(what.split())
    return {**of_openais, **of_anthropic.DEPRECATED_MODELS}


def shipped():
    return sorted({(path.name, model) for path in EXAMPLES for model in MODEL.findall(path.read_text())})


@pytest.mark.parametrize("file,model", shipped())
def test_a_model_that_an_example_names_is_served(file, model):
    assert model in IN_ANTHROPICS_LIST | IN_OPENAIS_LIST, f"{file} names {model}, which no SDK lists"
    if model in ending():
        # The list grows with the SDK: that must not fail a build, but be seen.
        warnings.warn(f"{file} names {model}: {ending()[model]}")


def test_the_lists_say_what_ends():
    assert "claude-sonnet-4-5" in ending() and "claude-haiku-5-5" not in ending()
    assert "gpt-5-mini" in ending() and "gpt-5.4-mini" not in ending()
