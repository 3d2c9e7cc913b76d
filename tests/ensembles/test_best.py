"""``preset=best``: what it selects, what it says of it, and that test rows decide nothing."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss, mean_squared_error
from support.commands import ROOT, run_forked

from mlp_lightning import evaluate, train, train_best
from mlp_lightning.config import Config, parse_config
from mlp_lightning.config.ensembles import DRAWN
from mlp_lightning.ensembles.space import candidates
from mlp_lightning.errors import ConfigError, TrainingError
from mlp_lightning.inference.loading import load_model
from mlp_lightning.runs.build import build_data
from mlp_lightning.sweeps.folds import of_fold, of_member
from mlp_lightning.tables.encoding import encode


def frame(rows: int = 160, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    table = pd.DataFrame(random.normal(size=(rows, 3)), columns=["a", "b", "c"])
    table["kind"] = random.choice(["left", "right", "up"], rows)
    signal = table["a"] * table["b"] + (table["kind"] == "up") + random.normal(size=rows) * 0.3
    table["label"] = np.where(signal > 0, "yes", "no")
    table["value"] = 30 + 4 * signal
    return table


def asked(target: str, count: int = 3, folds: int = 3, **others: Any) -> dict[str, Any]:
    other = {"label": "value", "value": "label"}[target]
    cv = {"folds": folds, "held_out_as": "val"}
    data = {"name": "frame", "target": target, "columns": {other: {"kind": "ignored"}}, "cv": cv, "test_fraction": 0.2}
    return {
        "data": data,
        "preset": {"name": "best", "candidates": count},
        "trainer": {"max_epochs": 4, "accelerator": "cpu"},
        "verbosity": 0,
        "seed": 5,
        **others,
    }


@pytest.fixture(scope="module", params=["label", "value"])
def selected(request, tmp_path_factory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("best") / "run"
    result = train_best(asked(request.param), folder, frame=frame())
    assert result.status == "finished"
    return request.param, folder


def test_what_it_says_is_what_its_networks_predict(selected: tuple[str, Path]) -> None:
    """Weights, temperature and the losses of held-out and of test rows, from the checkpoints of the networks alone."""
    target, folder = selected
    result = json.loads((folder / "result.json").read_text())
    assert sum(one["weight"] for one in result["members"]) == pytest.approx(1)
    assert [one["folds"] for one in result["members"]].count(3) == 2  # the first, and a third of two others
    assert result["members"][0]["options"] == {}
    table, scale = frame(), 1.0
    means: dict[str, list[Any]] = {"val": [], "test": []}
    truths: dict[str, list[Any]] = {"val": [], "test": []}
    for fold in range(3):
        data = build_data(of_fold(of_member(config_of(folder), 0), fold), given(table))
        scale = scale if fold else (data.target.scale or (1.0,))[0]
        for split in ("val", "test"):
            rows = table.iloc[data.row_numbers[split]]
            parts = [
                one["weight"] * predicted(folder / one["folder"] / f"fold-{fold}", rows)
                for one in result["members"]
                if one["weight"]
            ]
            means[split].append(sum(parts))
            truths[split].append(rows[target])
    test = [np.mean(means["test"], axis=0)], [truths["test"][0]]
    for split, (found, true) in {"val": (means["val"], truths["val"]), "test": test}.items():
        loss = loss_of(np.concatenate(found), np.concatenate(true), result["temperature"], scale)
        assert result["metrics"][split]["loss"] == pytest.approx(loss, rel=1e-4)


def config_of(folder: Path) -> Config:
    return load_model(folder / "checkpoints" / "best.ckpt").config


def given(table: pd.DataFrame) -> Any:
    from mlp_lightning.data.reading import Given
    from mlp_lightning.runs.fit import parsed_with_rows

    return Given(parsed_with_rows({"data": {"name": "table", "target": "label"}}, table)[2])


def predicted(folder: Path, rows: pd.DataFrame) -> np.ndarray:
    import pyarrow as pa

    weights = json.loads((folder / "result.json").read_text())["weights"]
    model = load_model(folder / "checkpoints" / f"{weights}.ckpt")
    raw_BF = encode(pa.Table.from_pandas(rows, preserve_index=False), model.columns, str)
    return model.predict(raw_BF)


def loss_of(predictions_BC: np.ndarray, true: np.ndarray, temperature: float, scale: float) -> float:
    if predictions_BC.shape[1] == 1:
        return float(mean_squared_error(true / scale, predictions_BC[:, 0] / scale))
    tempered_BC = predictions_BC ** (1 / temperature)
    return float(log_loss(true, tempered_BC / tempered_BC.sum(1, keepdims=True)))


def test_evaluate_finds_the_same_of_the_test_rows(selected: tuple[str, Path], tmp_path: Path) -> None:
    target, folder = selected
    table, result = frame(), json.loads((folder / "result.json").read_text())
    data = build_data(of_fold(of_member(config_of(folder), 0), 0), given(table))
    rows = table.iloc[data.row_numbers["test"]]
    report = evaluate(folder / "checkpoints" / "best.ckpt", tmp_path, frame=rows)
    if target == "label":
        assert report.metrics["log_loss"] == pytest.approx(result["metrics"]["test"]["loss"], rel=1e-5)
    else:
        assert report.metrics["mae"] == pytest.approx(result["metrics"]["test"]["mae"], rel=1e-5)


@pytest.mark.parametrize("target", ["label", "value"])
def test_test_rows_decide_nothing_and_it_repeats_to_the_same_bits(target: str, tmp_path: Path) -> None:
    first = train_best(asked(target, count=2), tmp_path / "first", frame=frame())
    data = build_data(of_fold(of_member(config_of(tmp_path / "first"), 0), 0), given(frame()))
    changed, rows = frame(), data.row_numbers["test"]
    changed.loc[rows, ["a", "b", "c"]] = np.random.default_rng(1).normal(size=(len(rows), 3)) * 50
    changed.loc[rows, "kind"] = "down"
    if target == "value":
        changed.loc[rows, "value"] = -1e3  # classes decide which rows are test rows
    second = train_best(asked(target, count=2), tmp_path / "second", frame=changed)
    assert second.metrics["val"] == first.metrics["val"]
    assert second.metrics["test"] != first.metrics["test"]
    contents = [torch.load(tmp_path / one / "checkpoints" / "best.ckpt") for one in ("first", "second")]
    assert contents[0]["ensemble"] == contents[1]["ensemble"]
    assert contents[0]["state_dict"].keys() == contents[1]["state_dict"].keys()
    for name, value in contents[0]["state_dict"].items():
        assert torch.equal(value, contents[1]["state_dict"][name]), name


def test_a_fold_knows_nothing_of_the_rows_that_it_holds_out_but_which_weights_are_best(tmp_path: Path) -> None:
    """Preprocessing and the last weights of a network are those of its training rows alone."""
    train_best(asked("value", count=1), tmp_path / "first", frame=frame())
    data = build_data(of_fold(of_member(config_of(tmp_path / "first"), 0), 1), given(frame()))
    changed, rows = frame(), data.row_numbers["val"]
    changed.loc[rows, ["a", "b", "c", "value"]] += 1e3
    train_best(asked("value", count=1), tmp_path / "second", frame=changed)
    files = [tmp_path / one / "members" / "0" / "fold-1" / "checkpoints" / "last.ckpt" for one in ("first", "second")]
    states = [torch.load(one)["state_dict"] for one in files]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=0)


def test_a_candidate_that_diverges_harms_no_other(tmp_path: Path) -> None:
    data = {**asked("value")["data"], "name": "table", "path": "t.csv"}
    config = parse_config({**asked("value", count=2), "data": data})
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=None))
    broken = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, lr=1e30))
    result = train_best(broken, tmp_path / "run", frame=frame())
    assert result.members[0]["metrics"] == {}
    assert [one["weight"] for one in result.members] == [0, 1]
    with pytest.raises(TrainingError, match="No candidate could be trained"):
        train_best(asked("value", count=2, optimizer={"lr": 1e30}), tmp_path / "other", frame=frame())


def test_candidates_are_drawn_alike_and_are_valid() -> None:
    plain = asked("label")
    plain["data"] = {**plain["data"], "name": "table", "path": "t.csv"}
    config = parse_config(plain)
    drawn, again = (list(itertools.islice(candidates(config, True, True), 30)) for _ in range(2))
    assert drawn == again
    assert drawn[0][1] == {}
    assert drawn[0][0].model == config.model
    assert len({json.dumps(options, sort_keys=True) for _, options in drawn}) == 30
    for one, _ in drawn:
        assert parse_config(one.to_dict()) is not None
    without = list(itertools.islice(candidates(config, False, False), 30))
    assert {one.model.numeric_embedding for one, _ in without} == {"none"}
    assert not any("trainer.label_smoothing" in options for _, options in without)


@pytest.mark.parametrize("callbacks", [{"histograms_every_n_steps": 5}, {"snapshots": 60}])
def test_pictures_of_a_run_are_none_of_its_candidates(callbacks: dict[str, Any]) -> None:
    found = drawn_of(callbacks=callbacks)
    assert len(found) == 24
    assert {(one.callbacks.histograms_every_n_steps, one.callbacks.snapshots) for one, _ in found} == {(None, None)}
    for one, _ in found:
        parse_config(one.to_dict())


def drawn_of(count: int = 24, has_numbers: bool = True, **sections: Any) -> list[tuple[Config, dict[str, Any]]]:
    plain = asked("label", **sections)
    plain["data"] = {**plain["data"], "name": "table", "path": "t.csv"}
    return list(itertools.islice(candidates(parse_config(plain), True, has_numbers), count))


@pytest.mark.parametrize(
    ("sections", "fixed"),
    [
        ({"model": {"hidden_units": 50}}, {"model.hidden_units"}),
        ({"model": {"hidden_units": [40, 30]}}, {"model.hidden_units", "model.depth"}),
        ({"model": {"depth": 4, "dropout": 0.25}}, {"model.depth", "model.dropout"}),
        ({"model": {"numeric_embedding": "none"}}, {"model.numeric_embedding"}),
        ({"model": {"residual": True}}, {"model.residual"}),
        ({"model": {"option": "wide_deep"}}, {key for key in DRAWN if key.startswith("model.")}),
        ({"model": "linear"}, {key for key in DRAWN if key.startswith("model.")}),
        ({"optimizer": {"lr": 0.07}}, {"optimizer.lr"}),
        ({"optimizer": {"weight_decay": 0.0}}, {"optimizer.weight_decay"}),
        ({"optimizer": {"name": "SGD"}}, {"optimizer.lr", "optimizer.weight_decay"}),
        ({"trainer": {"max_epochs": 7, "label_smoothing": 0.02}}, {"trainer.max_epochs", "trainer.label_smoothing"}),
        ({"scheduler": {"max_lr": 0.03}}, {"optimizer.lr"}),
    ],
)
def test_what_you_set_is_that_of_every_candidate(sections: dict[str, Any], fixed: set[str]) -> None:
    drawn = drawn_of(**{"trainer": {"max_steps": 40}, **sections})
    first = drawn[0][0].to_dict()
    for config, options in drawn:
        assert parse_config(config.to_dict()) is not None
        for key in fixed:
            section, name = key.split(".")
            assert config.to_dict()[section].get(name) == first[section].get(name)
            assert key not in options
    others = {key for key in DRAWN if key not in fixed} - {"trainer.max_epochs"}
    if fixed != {key for key in DRAWN if key.startswith("model.")}:
        others -= {"model.residual"} if isinstance(sections.get("model", {}).get("hidden_units"), list) else set()
        assert others <= {key for _, options in drawn for key in options}


def test_options_that_are_named_are_fixed() -> None:
    drawn = drawn_of(preset={"name": "best", "candidates": 3, "fixed": ["model.dropout", "optimizer.lr"]})
    assert not any({"model.dropout", "optimizer.lr"} & options.keys() for _, options in drawn)
    assert len({one.model.hidden_units for one, _ in drawn if isinstance(one.model.hidden_units, int)}) > 2


def test_a_command_fixes_what_it_sets(tmp_path: Path) -> None:
    frame(80).to_csv(tmp_path / "t.csv", index=False)
    words = [str(ROOT / "scripts" / "train.py"), "data=table", "data.path=t.csv", "data.target=label", "preset=best"]
    rest = ["data.columns={value: {kind: ignored}}", "model.hidden_units=11", "optimizer.lr=0.02"]
    rest += ["trainer.max_epochs=2", "data.cv.folds=2", "preset.candidates=4"]
    done = run_forked(*words, *rest, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "No candidate differs in model.hidden_units, optimizer.lr, trainer.max_epochs" in done.stdout
    (folder,) = (tmp_path / "lightning_logs" / "table").iterdir()
    for number in range(4):
        config = load_model(next(folder.glob(f"members/{number}/fold-0/checkpoints/best.ckpt"))).config
        assert (config.model.hidden_units, config.optimizer.lr, config.trainer.max_epochs) == (11, 0.02, 2)
    again = run_forked(*words, *rest, "auto_resume=true", folder=tmp_path)
    assert "Finished before" in again.stdout


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["preset.fixed=[model.depth]"], "is of preset=best"),
        (["preset=best", "preset.fixed=[model.bias]"], "preset.fixed"),
        (["preset.candidates=4"], "preset.candidates = 4 is of preset=best"),
        (["preset.name=best"], "needs all folds of data.cv.folds"),
        (["preset=best", "ensemble.members=3"], "contradicts preset=best"),
        (["preset=best", "data.cv.fold=1"], "needs all folds"),
        (["-m", "preset=best", "seed=1,2"], "data.cv.held_out_as = 'val' is for one command"),
        (["preset=best", "data.split_column=s"], "data.split_column"),
        (["preset=best", "data.val_fraction=0.2"], "data.val_fraction = 0.2 has no effect"),
        (["data.cv.held_out_as=val"], "needs data.cv.folds"),
        (["preset=better"], "preset"),
    ],
)
def test_a_command_that_cannot_be_is_refused(overrides: list[str], said: str, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    frame(40).to_csv(table, index=False)
    words = [str(ROOT / "scripts" / "train.py"), "data=table", f"data.path={table}", "data.target=label", *overrides]
    done = run_forked(*words, folder=tmp_path)
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == [table]


def test_another_preset_is_refused_from_python(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use train"):
        train_best({"data": {"name": "table", "target": "label"}}, tmp_path / "run", frame=frame(40))


def test_one_command(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    rest = ["data.columns={value: {kind: ignored}}", "trainer.max_epochs=3", "data.cv.folds=4", "preset.candidates=2"]
    table = ["data=table", "data.path=t.csv", "data.target=label", "preset=best"]
    done = run_forked(str(ROOT / "scripts" / "train.py"), *table, *rest, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Ensemble, test rows: loss" in done.stdout
    found = run_forked(str(ROOT / "scripts" / "evaluate.py"), "ckpt_path=best", folder=tmp_path)
    assert found.returncode == 0, found.stderr
    (folder,) = (tmp_path / "lightning_logs" / "table").iterdir()
    result = json.loads((folder / "result.json").read_text())
    (measured,) = folder.rglob("metrics.json")
    assert json.loads(measured.read_text())["metrics"]["log_loss"] == pytest.approx(result["metrics"]["test"]["loss"])


def test_losses_of_folds_are_in_one_unit(tmp_path: Path) -> None:
    """By time, the first fold trains on small values alone; all losses are in the variance of its training rows."""
    random = np.random.default_rng(4)
    table = pd.DataFrame({"a": random.normal(size=240), "moment": np.arange(240)})
    table["value"] = 7 + table["a"] * np.where(table["moment"] < 60, 0.5, 12.0) + random.normal(size=240) * 0.1
    config = asked("value", count=1, folds=4)
    config["data"] |= {"columns": {}, "time_column": "moment"}
    result = train_best(config, tmp_path / "run", frame=table)
    truths, means, medians, scale = [], [], [], 0.0
    for fold in range(4):
        data = build_data(of_fold(of_member(config_of(tmp_path / "run"), 0), fold), given(table))
        learned, held_out = (table["value"].to_numpy()[data.row_numbers[one]] for one in ("train", "val"))
        scale = scale or learned.std()
        truths.append(held_out)
        means.append(np.full(len(held_out), learned.mean()))
        medians.append(np.full(len(held_out), np.median(learned)))
    true = np.concatenate(truths)
    assert result.baseline is not None
    base = result.baseline["metrics"]["val"]
    assert base["loss"] == pytest.approx(mean_squared_error(true, np.concatenate(means)) / scale**2, rel=1e-5)
    assert base["mae"] == pytest.approx(np.abs(true - np.concatenate(medians)).mean(), rel=1e-5)
    assert result.members[0]["metrics"]["val"]["loss"] == pytest.approx(result.metrics["val"]["loss"], rel=1e-9)
    assert "their targets have moved" in result.warnings[0]


def test_the_last_seeds_are_followed_by_the_first(tmp_path: Path) -> None:
    result = train_best(asked("label", count=3, seed=2**63 - 2), tmp_path / "run", frame=frame())
    assert [one["seed"] for one in result.members] == [2**63 - 2, 2**63 - 1, 0]
    assert all(one["metrics"] for one in result.members)


@pytest.mark.parametrize("split", ["train", "val"])
def test_evaluate_names_no_file_that_is_not_there(split: str, selected: tuple[str, Path], tmp_path: Path) -> None:
    _, folder = selected
    with pytest.raises(ConfigError, match=r"held out by one fold; name other rows with data\.path"):
        evaluate(folder / "checkpoints" / "best.ckpt", tmp_path / "out", split=split)


def test_train_names_the_function_for_a_preset(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train_best"):
        train(asked("label"), tmp_path / "run", frame=frame())
    assert not list(tmp_path.iterdir())


def test_last_is_not_that_of_an_older_run(tmp_path: Path) -> None:
    """An ensemble keeps only ``best.ckpt``: ``last`` is refused, and is no run of another question."""
    frame().to_csv(tmp_path / "t.csv", index=False)
    train_py, predict_py = (str(ROOT / "scripts" / f"{one}.py") for one in ("train", "predict"))
    table = ["data=table", "data.path=t.csv", "trainer.max_epochs=1"]
    assert run_forked(train_py, *table, "data.target=value", "name=older", folder=tmp_path).returncode == 0
    words = [*table, "data.target=label", "data.cv.folds=2", "name=newer"]
    assert run_forked(train_py, *words, folder=tmp_path).returncode == 0
    (newer,) = (tmp_path / "lightning_logs" / "newer").iterdir()
    rest = ["data.path=t.csv", "output=o.csv"]
    done = run_forked(predict_py, "ckpt_path=last", *rest, folder=tmp_path)
    assert (done.returncode, "choose ckpt_path=best" in done.stderr) == (2, True), done.stderr
    done = run_forked(predict_py, f"ckpt_path={newer}", *rest, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "predicted_label" in (tmp_path / "o.csv").read_text().splitlines()[0]
    again = [*table, "data.target=value", "name=newest"]
    assert run_forked(train_py, *again, folder=tmp_path).returncode == 0
    done = run_forked(predict_py, "ckpt_path=last", *rest, "overwrite=true", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "predicted_value" in (tmp_path / "o.csv").read_text().splitlines()[0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still but for the networks that are trained: each takes as long as its number says."""
    from mlp_lightning.ensembles import best

    now, train_parts = [0.0, 1.0], best._Best._train

    def trained(self: Any, of_round: Any, folds: Any) -> bool:
        before = self._steps_made
        done = train_parts(self, of_round, folds)
        if self._steps_made > before:
            now[0] += now[1] * sum(len(folds) for _ in of_round)
        if of_round and of_round[0].number:
            now[1] = now[2] if len(now) > 2 else now[1]
        return done

    monkeypatch.setattr(best._Best, "_train", trained)
    monkeypatch.setattr(best, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize("limit", [4.0, 14.0, 40.0, 90.0])
def test_the_time_limit_holds_where_candidates_take_as_long_as_they_did(
    limit: float, clock: list[float], tmp_path: Path
) -> None:
    config = {**asked("value"), "preset": {"option": "best", "time_limit_s": limit}}
    config["trainer"] = {"max_epochs": 1, "accelerator": "cpu"}
    result = train_best(config, tmp_path / "run", frame=frame(90))
    count = len(result.members)
    assert clock[0] <= max(limit, 3) + 3  # a candidate takes three seconds: three folds of a second each
    assert count == 1 if limit < 6 else count > 1
    if limit >= 40:
        assert count > 1 + (limit - 3) / (3 * 3.0)  # more than the first guess: their networks are as fast as the first
    whole = [one for one in result.members if one["folds"] == 3]
    assert len(whole) <= 1 + -(-(count - 1) // 3)


def test_fewer_train_in_all_folds_where_the_time_is_too_short(clock: list[float], tmp_path: Path) -> None:
    clock.append(400.0)  # what a network takes after the first round
    config = {**asked("value"), "preset": {"option": "best", "time_limit_s": 60.0}}
    config["trainer"] = {"max_epochs": 1, "accelerator": "cpu"}
    result = train_best(config, tmp_path / "run", frame=frame(90))
    assert (tmp_path / "run" / "candidates.txt").read_text().split()[2] == "0"
    assert [one["folds"] for one in result.members].count(3) == 1
    again_clock = clock[0]
    (tmp_path / "run" / "result.json").unlink()
    again = train_best(config, tmp_path / "run", frame=frame(90), continues=True)
    assert again.metrics == result.metrics
    assert clock[0] == again_clock


def test_the_time_of_the_first_candidate_has_that_of_an_earlier_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many candidates the time allows follows from all of its folds, not from those that were left."""
    seconds: list[float] = []
    monkeypatch.setattr("mlp_lightning.ensembles.best._Best._affordable", lambda _, one, __: seconds.append(one) or 0)
    clock = itertools.count()
    monkeypatch.setattr("mlp_lightning.ensembles.best.time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    config, folder = {**asked("value"), "preset": "best"}, tmp_path / "run"
    train_best(config, folder, frame=frame())
    for file in ("result.json", "candidates.txt"):
        (folder / file).unlink()
    shutil.rmtree(folder / "members" / "0" / "fold-1")
    train_best(config, folder, frame=frame(), continues=True)
    assert seconds[::2] == [pytest.approx(1.0), pytest.approx(3.0, rel=0.1)]  # three times that of one of three folds
