"""What the runs of a sweep share: known sections, plain values, numbers without a grammar."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlp_lightning.config import Config, parse_complete, parse_config
from mlp_lightning.config.shared import SECTIONS, Remembered
from mlp_lightning.config.updates import as_number, updated
from mlp_lightning.errors import ConfigError

TEXTS = [
    *("0", "7", "1024", "01", "-3", "+3", "1_000", "0.5", "1.", ".5", "00.5", "1e-3", "1.5e3", "inf", "nan", "0x1f"),
    *("123456789012345678", "1234567890123456789", "0.1000000000000000055", "٣", "1 ", "", "null", "true", "1.0.0"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_number_is_what_hydras_grammar_reads(text) -> None:
    number = as_number(text)
    if number is None:
        assert text not in ("0", "7", "1024", "0.5")  # the plain ones are read here
        return
    value = OverridesParser.create().parse_override(f"seed={text}").value()
    assert (type(number), number) == (type(value), value)


VALUES = [1, 2.5, True, None, "text", "${seed}", "a$b", "???", [1, 2], [1, [2]], ["${seed}"], [{"a": 1}], {"a": 1}, []]
KEYS = ["seed", "model.hidden_units", "optimizer.lr", "callbacks.early_stopping", "model.new", "model", "data.cv.folds"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", VALUES, ids=str)
def test_another_value_is_put_in_as_omegaconf_does(key, value) -> None:
    plain = parse_config({"data": {"name": "xor"}}).to_dict()
    before = copy.deepcopy(plain)
    other = OmegaConf.create(copy.deepcopy(plain))
    try:
        OmegaConf.update(other, key, copy.deepcopy(value), force_add=True)
    except OmegaConfBaseException as error:
        with pytest.raises(type(error)):
            updated(plain, key, value)
        return
    assert repr(updated(plain, key, value)) == repr(OmegaConf.to_container(other))
    assert plain == before


def test_known_sections_change_nothing_but_identity() -> None:
    plain = parse_config({"data": {"name": "iris"}, "optimizer": "adam"}).to_dict()
    known = {}
    first, second = (parse_complete({**plain, "seed": seed}, known=known) for seed in (1, 2))
    assert first.model is second.model
    assert first.trainer is second.trainer
    assert first == parse_complete({**plain, "seed": 1})
    assert second == parse_complete({**plain, "seed": 2})


def test_a_section_with_a_fault_is_reported_every_time() -> None:
    plain = parse_config({"data": {"name": "xor"}}).to_dict()
    plain["optimizer"]["lr"] = -1.0
    known = {}
    for seed in (1, 2):
        with pytest.raises(ConfigError, match=r"optimizer\.lr = -1\.0"):
            parse_complete({**plain, "seed": seed}, known=known)


def test_remembered_results_belong_to_their_objects() -> None:
    calls = []
    length = Remembered(lambda one: calls.append(one) or len(one))
    one, equal = [1, 2], [1, 2]
    assert [length(one), length(equal), length(one)] == [2, 2, 2]
    assert len(calls) == 2
    for number in itertools.islice(itertools.count(), 5000):  # more than are kept
        assert length([0] * (number % 7)) == number % 7


def test_the_limit_that_was_given_holds_for_known_sections_too() -> None:
    plain = parse_config({"data": {"name": "iris"}, "trainer": {"max_steps": 50}}).to_dict()
    plain["trainer"]["max_epochs"] = 3
    known = {}
    for explicit in (("trainer.max_steps",), ("trainer.max_epochs",), ()):
        assert parse_complete(plain, explicit, known=known) == parse_complete(plain, explicit)


def test_the_sections_are_those_of_the_schema() -> None:
    sections = [one.name for one in dataclasses.fields(Config) if one.name not in SECTIONS]
    values = parse_config({"data": {"name": "xor"}}).to_dict()
    assert not any(isinstance(values.get(name), dict) for name in sections)
    assert all(isinstance(values[name], dict) for name in SECTIONS)
