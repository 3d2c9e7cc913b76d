"""Options of the columns of a table: kinds, formats, texts of missing values."""

from __future__ import annotations

from typing import Any

import pytest
from support.table_faults import accepted, fault_of, faults_of

from mlp_lightning.config import ColumnConfig, parse_config
from mlp_lightning.errors import Fault


def test_columns_become_sections() -> None:
    given = {"age": {"kind": "numeric"}, "zip code": {"kind": "categorical"}, "town": {}, 2020: {"kind": "ignored"}}
    columns = accepted(**{"data.columns": given}).data.columns
    assert columns == {
        "age": ColumnConfig("numeric"),
        "zip code": ColumnConfig("categorical"),
        "town": ColumnConfig("auto"),
        "2020": ColumnConfig("ignored"),
    }


def test_columns_survive_being_written_and_read() -> None:
    config = accepted(**{"data.columns": {"zip code": {"kind": "categorical"}}, "data.csv.null_values": ["?"]})
    assert parse_config(config.to_dict()) == config
    assert config.to_dict()["data"]["columns"] == {"zip code": {"kind": "categorical", "format": None}}


@pytest.mark.parametrize("value", [5, "age", None, ["age"], True])
def test_columns_that_are_not_a_mapping(value: Any) -> None:
    fault = fault_of(**{"data.columns": value})
    rule = "must be a mapping of names to sections"
    assert fault == Fault("data.columns", value, rule, "for example {age: {kind: auto}}")


@pytest.mark.parametrize("value", ["numeric", None, ["numeric"], 5])
def test_column_that_is_not_a_section(value: Any) -> None:
    fault = fault_of(**{"data.columns": {"age": value}})
    assert fault == Fault("data.columns.age", value, "must be a section", "its keys are kind, format")


def test_every_fault_of_columns_has_its_key() -> None:
    columns = {"age": {"kind": "numric"}, "zip code": {"knd": "numeric"}, "town": 5, "x": {"kind": None}, "good": {}}
    faults = faults_of(**{"data.columns": columns})
    kinds = "auto, numeric, categorical, boolean, datetime, ignored"
    assert faults == [
        Fault("data.columns.age.kind", "numric", f"must be one of {kinds}", "did you mean numeric?"),
        Fault(
            "data.columns.zip code.knd",
            "numeric",
            "is not a key of data.columns.zip code (kind, format)",
            "did you mean data.columns.zip code.kind?",
        ),
        Fault("data.columns.town", 5, "must be a section", "its keys are kind, format"),
        Fault("data.columns.x.kind", None, "must be a text"),
    ]


@pytest.mark.parametrize(("kind", "task"), [("numeric", "multiclass"), ("categorical", "regression")])
def test_the_kind_of_a_target_against_the_task(kind: str, task: str) -> None:
    columns = {"data.columns": {"y": {"kind": kind}}}
    fault = fault_of(**columns, task=task)
    assert (fault.key, fault.value) == ("data.columns.y.kind", kind)
    assert f"contradicts task = {task!r}" in fault.rule
    accepted(**columns)


@pytest.mark.parametrize("kind", ["categorical", "boolean"])
def test_kinds_of_several_targets_contradict_each_other(kind: str) -> None:
    columns = {"height": {"kind": "numeric"}, "frost": {"kind": kind}, "rain": {"kind": "numeric"}}
    fault = fault_of(**{"data.columns": columns, "data.target": ["frost", "rain", "height"]})
    rule = "contradicts data.columns.rain.kind = 'numeric': several targets are all numbers or all classes"
    assert fault == Fault("data.columns.frost.kind", kind, rule, "set one kind for both")
    accepted(**{"data.columns": {**columns, "frost": {"kind": "numeric"}}, "data.target": ["frost", "rain", "height"]})


@pytest.mark.parametrize("kind", ["ignored", "datetime"])
@pytest.mark.parametrize("target", ["y", ["z", "y"]])
def test_a_target_is_not_left_out(kind: str, target: Any) -> None:
    fault = fault_of(**{"data.columns": {"y": {"kind": kind}}, "data.target": target})
    assert fault.rule == "contradicts data.target, which names this column"


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%Y%m%d", "%b %d, %y", "%H:%M", "%d.%m.%Y %H.%M", "%I:%M %p"])
def test_formats(form: str) -> None:
    column = accepted(**{"data.columns": {"when": {"format": form}}}).data.columns["when"]
    assert column == ColumnConfig("auto", form)


@pytest.mark.parametrize("form", ["", "dd.mm.yyyy", "%d.%m", "%d %d %Y %m", "%Q %Y %m", "%Y", "%m %b %Y", "%Y %m %"])
def test_formats_that_are_none(form: str) -> None:
    fault = fault_of(**{"data.columns": {"when": {"format": form}}})
    assert (fault.key, fault.value) == ("data.columns.when.format", form)
    assert "such as %d/%m/%Y" in fault.rule


@pytest.mark.parametrize(
    ("column", "further"),
    [
        ({"kind": "numeric"}, {}),
        ({"kind": "ignored"}, {}),
        ({}, {"data.target": "when"}),
        ({}, {"data.group_column": "when"}),
        ({}, {"data.weight_column": "when"}),
    ],
)
def test_formats_without_effect(column: dict[str, str], further: dict[str, Any]) -> None:
    settings = {"data.columns": {"when": {"format": "%d/%m/%Y", **column}}}
    fault = fault_of(**settings, **further)
    assert (fault.key, fault.value) == ("data.columns.when.format", "%d/%m/%Y")
    assert "has no effect" in fault.rule
    accepted(**settings, **{"data.time_column": "when"})


@pytest.mark.parametrize("value", ["auto", [], [""], ["NA", "?"]])
def test_texts_of_missing_values(value: Any) -> None:
    assert accepted(**{"data.csv.null_values": value}).data.csv.null_values == value


@pytest.mark.parametrize("value", ["?", "Auto", 9, None, [9], ["?", None], {"a": "?"}])
def test_invalid_texts_of_missing_values(value: Any) -> None:
    fault = fault_of(**{"data.csv.null_values": value})
    assert (fault.key, fault.value, fault.rule) == ("data.csv.null_values", value, "must be a list of texts or auto")


def test_a_mark_between_thousands_and_before_decimals() -> None:
    fault = fault_of(**{"data.csv.decimal": ",", "data.csv.thousands": ","})
    rule = "contradicts data.csv.decimal = ',': one mark cannot be both"
    assert fault == Fault("data.csv.thousands", ",", rule, "set one of the two")
    for value in ("none", ".", "space", "apostrophe"):
        assert accepted(**{"data.csv.decimal": ",", "data.csv.thousands": value}).data.csv.thousands == value
