"""The model card: it says what was measured, every value is text, and what it says to type works."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from support.commands import ROOT, run_forked

from mlp_lightning import cross_validate, train, train_best, train_ensemble
from mlp_lightning.runs import train_stack
from mlp_lightning.runs.card import code, text
from mlp_lightning.runs.fit import parsed_with_rows

HOSTILE = ["|x|<script>", "[a](javascript:1)", "`b`\n# c", "https://user:secret@host/t.csv?token=abc", "*d*&lt;\x1b[2J"]


def frame(rows: int = 90) -> pd.DataFrame:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(rows, 2)), columns=["a", "b"])
    table["kind"] = random.choice(["left", "right"], rows)
    table["same"] = 1.0
    table["y"] = table["a"] + random.normal(size=rows)
    table.loc[3, "y"] = np.nan
    return table


def asked(**data: Any) -> dict[str, Any]:
    return {
        "data": {"name": "table", "target": "y", "val_fraction": 0.2, "test_fraction": 0.2, **data},
        "model": {"hidden_units": 6, "depth": 1, "dropout": 0.0},
        "trainer": {"max_epochs": 3, "accelerator": "cpu"},
        "verbosity": 0,
    }


def tables(card: str) -> list[list[list[str]]]:
    """The tables of a card as a renderer of Markdown shows them: rows of cells of plain text."""
    found: list[list[list[str]]] = []
    is_cell = False
    for token in MarkdownIt("commonmark", {"linkify": False}).enable("table").parse(card):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            is_cell = True
        elif token.type == "inline" and is_cell:
            is_cell = False
            assert {one.type for one in token.children or []} <= {"text", "text_special"}, token.content
            found[-1][-1].append("".join(one.content for one in token.children or []))
    return found


def test_it_says_what_the_run_measured(tmp_path) -> None:
    train(asked(), tmp_path / "run", frame=frame())
    card, result = (tmp_path / "run" / one for one in ("model_card.md", "result.json"))
    found, said = tables(card.read_text(encoding="utf-8")), json.loads(result.read_text(encoding="utf-8"))
    columns, ignored, configuration, metrics = found
    assert columns[1:] == [
        ["a", "numeric", "", ""],
        ["b", "numeric", "", ""],
        ["kind", "categorical", "2 categories", ""],
    ]
    assert ignored[1:] == [["same", "is always 1.0"]]
    assert ["model.hidden_units", "6"] in configuration
    assert ["data.val_fraction", "0.2"] in configuration
    assert not [one for one in configuration if one[0] in ("seed", "model.bias", "verbosity")]
    assert metrics[0] == ["rows", "loss", "baseline", "mae", "baseline"]
    for (title, *cells), split in zip(metrics[1:], ("train", "val", "test"), strict=True):
        base = said["baseline"]["metrics"][split]
        expected = [one for name in ("loss", "mae") for one in (said["metrics"][split][name], base[name])]
        assert cells == [f"{one:.6g}" for one in expected]
        assert title == {"train": "training rows", "val": "validation rows", "test": "test rows"}[split]
    assert said["fingerprint"]["data"]["as_set"] in card.read_text(encoding="utf-8")
    assert "left out: 1" in card.read_text(encoding="utf-8")
    assert "validation rows chose the weights" in card.read_text(encoding="utf-8")


def test_without_held_out_rows_it_says_so(tmp_path) -> None:
    train(asked(val_fraction=0.0, test_fraction=0.0), tmp_path / "run", frame=frame())
    card = (tmp_path / "run" / "model_card.md").read_text(encoding="utf-8")
    assert "decided nothing" in card
    assert "chose the weights" not in card
    assert "checkpoints/last.ckpt" in card


def test_it_says_which_rows_chose_the_weights(tmp_path) -> None:
    by_validation = {
        "default": {},
        "last": {"report_weights": "last"},
        "training": {"callbacks": {"checkpoint": {"monitor": "loss/train"}}, "report_weights": "best"},
    }
    for name, options in by_validation.items():
        for kind, fit, more in (("one", train, {}), ("many", train_ensemble, {"ensemble": {"members": 2}})):
            folder = tmp_path / f"{name}-{kind}"
            fit({**asked(), **options, **more}, folder, frame=frame())
            said = "chose the weights" in (folder / "model_card.md").read_text(encoding="utf-8")
            assert said == (name == "default"), (name, kind)


def test_without_checkpoints_nothing_is_said_to_type(tmp_path) -> None:
    train({**asked(), "callbacks": {"checkpoint": None}, "report_weights": "last"}, tmp_path / "run", frame=frame())
    card = (tmp_path / "run" / "model_card.md").read_text(encoding="utf-8")
    assert "kept no checkpoint" in card
    assert "mlp-predict" not in card


def test_classes_are_counted(tmp_path) -> None:
    table = frame().assign(y=lambda one: np.where(one["a"] > 1, "rare|", "often"))
    result = train(asked(), tmp_path / "run", frame=table)
    card = (result.run_dir / "model_card.md").read_text(encoding="utf-8")
    counted = re.search(r"often (\d+), rare\\\| (\d+)", card)
    assert counted is not None
    assert 10 < sum(map(int, counted.groups())) == int(re.findall(r"rows: (\d+) training", card)[0])


@pytest.mark.parametrize("name", HOSTILE)
def test_every_name_and_value_is_text(tmp_path, name) -> None:
    table = frame().rename(columns={"a": name, "same": f"{name} too", "kind": f"kind {name}"})
    train(asked(), tmp_path / "run", frame=table)
    card = (tmp_path / "run" / "model_card.md").read_text(encoding="utf-8")
    columns, ignored, *_ = tables(card)
    assert [len(one) for one in columns] == [4, 4, 4, 4]
    assert [len(one) for one in ignored] == [2, 2]
    shown = columns[1][0]
    assert "secret" not in shown
    assert "token" not in shown
    if name.isprintable() and "://" not in name:
        assert shown == name
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", card)
    tokens = MarkdownIt("commonmark").enable("table").parse(card)
    assert {one.tag for one in tokens if one.type == "heading_open"} == {"h1", "h2"}
    assert not [one for one in tokens if one.type == "html_block"]


def test_no_line_ends_a_block_of_code() -> None:
    tokens = MarkdownIt().parse(code(["a", "```", "````b"], "sh") + "\n\nafter")
    assert [one.type for one in tokens][:2] == ["fence", "paragraph_open"]
    assert tokens[0].content == "a\n```\n````b\n"


@pytest.mark.parametrize("value", ["a_b", "<!-- c", "~~d~~", "$e$", "www.f.org", "g@h.org", "\\|"])
def test_values_are_text(value) -> None:
    shown = MarkdownIt("gfm-like", {"linkify": False}).render(f"x {text(value)}")
    assert html.unescape(shown) == f"<p>x {value}</p>\n"


def train_all(kind: str, folder: Path, **data: Any) -> Any:
    if kind == "folds":
        config = asked(**data, cv={"folds": 2}, val_fraction=0.0)
        del config["data"]["test_fraction"]
        return cross_validate(config, folder)
    if kind == "best":
        config = asked(**data, cv={"folds": 2, "held_out_as": "val"}, val_fraction=0.0)
        return train_best({**config, "preset": {"name": "best", "candidates": 2}}, folder)
    if kind == "ensemble":
        return train_ensemble({**asked(**data), "ensemble": {"members": 2}}, folder)
    return train(asked(**data), folder)


@pytest.mark.parametrize("kind", ["single", "ensemble", "folds", "best"])
def test_what_it_says_to_type_works(tmp_path, monkeypatch, kind) -> None:
    monkeypatch.chdir(tmp_path)
    frame().to_csv("table.csv", index=False)
    frame(12).dropna().to_csv("labelled.csv", index=False)
    frame(9).drop(columns="y").to_csv("new.csv", index=False)
    train_all(kind, tmp_path / "a run", path="table.csv")
    blocks = [
        one
        for one in MarkdownIt().parse(Path("a run/model_card.md").read_text(encoding="utf-8"))
        if one.type == "fence"
    ]
    assert [one.info for one in blocks] == ["sh", "python"]
    exec(blocks[1].content, {})
    assert len(pd.read_parquet("predictions.parquet")) == 9
    assert Path("a run/model.safetensors").is_file()
    assert Path("evaluation/metrics.json").is_file()
    if kind == "single":
        for line in blocks[0].content.splitlines():
            name, *words = shlex.split(line)
            done = run_forked(str(ROOT / "scripts" / f"{name.removeprefix('mlp-')}.py"), *words, folder=tmp_path)
            assert (done.returncode, done.stderr) == (0, ""), line
        assert len(pd.read_csv("predictions.csv")) == 9


def test_a_run_that_was_stopped_has_the_same_card(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = {**asked(), "callbacks": {"checkpoint": {"every_n_steps": 2}}, "scheduler": "none"}
    short, whole = ({"trainer": {"max_steps": steps, "accelerator": "cpu"}} for steps in (4, 6))
    train({**config, **short}, "begun", frame=frame())
    train({**config, **whole}, "whole", frame=frame())
    checkpoint = str(tmp_path / "begun" / "checkpoints" / "last.ckpt")
    train({**config, **whole, "ckpt_path": checkpoint}, "continued", frame=frame())
    at_once, continued = (Path(one, "model_card.md").read_text(encoding="utf-8") for one in ("whole", "continued"))
    assert continued.replace("continued/", "whole/") == at_once


def test_who_has_none(tmp_path) -> None:
    """Members of stacks, ensembles and folds; data sets that are not yours."""
    configs = [parsed_with_rows(asked(split_seed=seed), frame())[0] for seed in (0, 1)]
    train_stack(configs, [tmp_path / "0", tmp_path / "1"], source=parsed_with_rows(asked(), frame())[2])
    train({**asked(), "data": "iris"}, tmp_path / "iris")
    train_ensemble({**asked(), "ensemble": {"members": 2}}, tmp_path / "ensemble", frame=frame())
    folds = asked(cv={"folds": 2, "held_out_as": "val"}, val_fraction=0.0)
    cross_validate({**folds, "ensemble": {"members": 2}}, tmp_path / "folds", frame=frame())
    found = {one.parent.relative_to(tmp_path).as_posix() for one in tmp_path.rglob("model_card.md")}
    assert found == {"ensemble", "folds"}
