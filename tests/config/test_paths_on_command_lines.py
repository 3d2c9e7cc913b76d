"""Paths in commands that are printed, and typed again."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from mlp_lightning.commands.report import with_path_named
from mlp_lightning.config.free_names import hydra_text, path_option


def value_of(override: str) -> object:
    (parsed,) = OverridesParser.create().parse_overrides([override])
    assert not parsed.is_sweep_override()
    return parsed.value()


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_a_quoted_text_is_read_back(text: str) -> None:
    assert value_of(f"key={hydra_text(text)}") == text


@pytest.mark.parametrize(
    "path",
    [
        "runs/a/best.ckpt",
        "Müller/a,b/c(1).ckpt",
        "it's/#1.ckpt",
        "two words/{x}.ckpt",
        "C:\\runs\\",
        "\\'",
        "${x}.ckpt",
    ],
)
def test_a_path_that_is_printed_can_be_typed(path: str) -> None:
    (word,) = shlex.split(shlex.quote(path_option("ckpt_path", path)))
    assert value_of(word) == path
    (named,) = with_path_named([path])
    assert value_of(named) == path


@pytest.mark.parametrize("option", ["--cfg", "-c", "--config-dir", "-cn", "--package"])
def test_the_value_of_an_option_of_hydra_is_no_path(option: str) -> None:
    assert with_path_named([option, "job", "runs/1"]) == [option, "job", "path='runs/1'"]
    assert with_path_named([option, "job"]) == [option, "job"]
