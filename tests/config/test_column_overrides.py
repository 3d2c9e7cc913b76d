"""Overrides that set the kinds of columns: their keys are the user's own names."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from support.commands import train, train_forked
from support.override_faults import fault_of

from mlp_lightning.config import ColumnConfig
from mlp_lightning.config.free_names import column_option
from mlp_lightning.config.overrides import check_overrides, with_open_sections

TABLE = ["data=table", "data.path=rows.csv", "data.target=y"]


def kinds_of(*overrides: str, multirun: bool = False) -> dict[str, str]:
    """The kinds of columns in the configuration of the first run."""
    columns = check_overrides([*TABLE, *overrides], multirun=multirun).data.columns
    return {name: one.kind for name, one in columns.items()}


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_a_column_is_named_with_or_without_a_plus_sign(sign: str) -> None:
    assert kinds_of(f"{sign}data.columns.age.kind=categorical") == {"age": "categorical"}
    assert kinds_of(f"{sign}data.columns.2020.kind=numeric") == {"2020": "numeric"}


NAMES = [
    "my col",
    "a.b",
    "a, b",
    "a: b",
    "a=b",
    "{a}",
    "[a]",
    "it's",
    "Größe",
    "日本",
    "${seed}",
    "null",
    "yes",
    "a\\b",
]


@pytest.mark.parametrize("quoted", [json.dumps, lambda name: "'" + name.replace("'", "''") + "'"], ids=["json", "yaml"])
def test_columns_by_any_name(quoted: Callable[[str], str]) -> None:
    words = ", ".join(f"{quoted(name)}: {{kind: numeric}}" for name in NAMES)
    assert kinds_of(f"data.columns={{{words}, age: {{kind: ignored}}}}") == {
        **dict.fromkeys(NAMES, "numeric"),
        "age": "ignored",
    }


@pytest.mark.parametrize("text", ['{"my col": {kind: numeric}}', "{my col: {kind: numeric}}"])
def test_ways_to_name_columns_go_together(text: str) -> None:
    words = ["data.columns.age.kind=categorical", f"data.columns={text}", "data.columns.town.kind=ignored"]
    expected = {"age": "categorical", "my col": "numeric", "town": "ignored"}
    assert kinds_of(*words) == kinds_of(*words[::-1]) == expected


def test_the_kind_of_a_column_may_be_swept_over() -> None:
    assert kinds_of("data.columns.age.kind=categorical,numeric", multirun=True) == {"age": "categorical"}
    fault = fault_of(*TABLE, "data.columns.age.kind=categorical,nmeric", multirun=True)
    assert (fault.key, fault.value, fault.hint) == ("data.columns.age.kind", "nmeric", "did you mean numeric?")
    assert fault_of(*TABLE, "data.columns.age.kind=numeric,ignored").rule == "is several values"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.columns.age=categorical", "data.columns.age"),
        ("data.columns.age.kind=cat", "data.columns.age.kind"),
        ("data.columns.age.knd=numeric", "data.columns.age.knd"),
        ("data.columns=5", "data.columns"),
        ("data.columns=null", "data.columns"),
        ('data.columns={"my col": {kind: cat}}', "data.columns.my col.kind"),
        ('data.columns={"my col": 5}', "data.columns.my col"),
        ('data.columns={"my col": {kind: numeric}', "data.columns"),
        ("data.columns.my col.kind=cat", "data.columns.my col.kind"),
        ("data.columns.age.kind=[1,", "data.columns.age.kind"),
    ],
)
def test_faults_of_columns_have_the_keys_that_were_given(override: str, key: str) -> None:
    assert fault_of(*TABLE, override).key == key


def test_every_data_set_has_columns() -> None:
    config = check_overrides(["data=xor", "data.columns.x1.kind=categorical"])
    assert config.data.columns == {"x1": ColumnConfig("categorical")}


def test_only_open_sections_need_no_plus_sign() -> None:
    given = [
        "data.columns.age.kind=numeric",
        "+data.columns.a.kind=numeric",
        "~data.columns",
        "data.columnsx=1",
        "seed=1",
    ]
    assert with_open_sections(given) == ["++data.columns.age.kind=numeric", *given[1:]]
    assert fault_of(*TABLE, "data.csv.quote=x").key == "data.csv.quote"


def kinds_after(run: Callable[..., CompletedProcess[str]], *words: str, folder: Path) -> list[dict[str, str]]:
    """The kinds of columns in the configuration of each run of a real command."""
    lines = "".join(f"{'0' if one % 3 else '1'},{one % 5},{'ab'[one % 2]}\n" for one in range(40))
    (folder / "rows.csv").write_text(f"code,my col,y\n{lines}", encoding="utf-8")
    short = ["trainer=cpu", "trainer.max_steps=1", "logger=none", "callbacks=none", "verbosity=0", "name=run"]
    done = run(*words, *TABLE, *short, folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    files = sorted((folder / "lightning_logs" / "run").rglob("config.yaml"))
    configs = [yaml.safe_load(one.read_text(encoding="utf-8")) for one in files if one.parent.name != ".hydra"]
    return [{name: one["kind"] for name, one in each["data"]["columns"].items()} for each in configs]


@pytest.mark.slow
def test_a_command_takes_columns_without_a_plus_sign(tmp_path: Path) -> None:
    given = ["data.columns.code.kind=categorical", 'data.columns={"my col": {kind: numeric}}']
    assert kinds_after(train, *given, folder=tmp_path) == [{"code": "categorical", "my col": "numeric"}]


@pytest.mark.slow
def test_a_sweep_takes_columns_without_a_plus_sign(tmp_path: Path) -> None:
    given = ["-m", "data.columns.code.kind=categorical,ignored", 'data.columns={"my col": {kind: categorical}}']
    kinds = kinds_after(train_forked, *given, folder=tmp_path)
    assert sorted(one["code"] for one in kinds) == ["categorical", "ignored"]
    assert [one["my col"] for one in kinds] == ["categorical"] * 2


@pytest.mark.parametrize("name", ["my ratio", "a.b", "größe", "true", "3", "x (cm)", "a-b", "日本"])
def test_an_option_of_a_column_with_any_name(name: str) -> None:
    assert kinds_of(f"data.columns.{name}.kind=ignored", "data.columns.age.kind=numeric") == {
        name: "ignored",
        "age": "numeric",
    }


@pytest.mark.parametrize("name", [*NAMES, "age", "3", '"', 'it\'s "so"'])
@pytest.mark.parametrize(("option", "value"), [("kind", "ignored"), ("format", "%b %d, %Y"), ("format", "%d/%m/%Y")])
def test_advice_can_be_typed(name: str, option: str, value: str) -> None:
    (typed,) = shlex.split(column_option(name, option, value))
    columns = check_overrides([*TABLE, typed]).data.columns
    assert columns == {name: ColumnConfig(**{option: value})}


@pytest.mark.parametrize("key", ["data.target", "data.weight_column", "data.group_column", "data.time_column"])
def test_a_column_called_by_a_number(key: str) -> None:
    config = check_overrides([*TABLE, f"{key}=3"])
    assert getattr(config.data, key.removeprefix("data.")) == "3"


def test_columns_called_by_numbers() -> None:
    assert check_overrides([*TABLE, "data.target=[3,y,10]"]).data.target == ["3", "y", "10"]


@pytest.mark.parametrize("value", ["3.5", "true"])
def test_a_column_called_like_another_value(value: str) -> None:
    fault = fault_of(*TABLE, f"data.target={value}")
    assert fault.key == "data.target"
    typed = shlex.split(fault.hint.rpartition(": ")[2])
    assert check_overrides([*TABLE, *typed]).data.target.lower() == value
