"""What TensorBoard and metrics.csv show, read back with TensorBoard's readers."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
from tensorboard import context
from tensorboard.backend.event_processing import data_provider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

import mlp_lightning
from mlp_lightning.errors import MLPLightningError
from mlp_lightning.runs.hyperparameters import hyperparameters, label

IRIS = ["data=iris", "data.batch_size=16"]  # 6 steps an epoch
proto: Any = api_pb2


def events_of(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    return events


def test_scalars_are_at_true_optimizer_steps(tmp_path, compose_config) -> None:
    case = [*IRIS, "trainer.max_steps=20", "trainer.log_every_n_steps=5", "optimizer=adam", "scheduler=cosine"]
    result = mlp_lightning.train(compose_config(*case), tmp_path / "run")
    events = events_of(result.run_dir)
    steps = {tag: [one.step for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert steps == {
        # The last one is that of all rows after the last step.
        "loss/train": [0, 5, 10, 15, 20],
        "accuracy/train": [0, 5, 10, 15, 20],
        "learning_rate": [0, 5, 10, 15],
        # After each epoch, and after the last step.
        "loss/val": [6, 12, 18, 20],
        "accuracy/val": [6, 12, 18, 20],
        "loss/test": [20],
        "accuracy/test": [20],
    }
    learning_rates = [one.value for one in events.Scalars("learning_rate")]
    assert learning_rates == pytest.approx(
        [0.001 * (1 + math.cos(math.pi * step / 20)) / 2 for step in (0, 5, 10, 15)], rel=1e-5
    )
    for split, metrics in result.metrics.items():
        assert events.Scalars(f"loss/{split}")[-1].value == pytest.approx(metrics["loss"], rel=1e-6)
        assert events.Scalars(f"accuracy/{split}")[-1].value == pytest.approx(metrics["accuracy"], rel=1e-6)


def test_csv_has_the_same_metrics(tmp_path, compose_config) -> None:
    result = mlp_lightning.train(compose_config(*IRIS, "trainer.max_steps=20"), tmp_path / "run")
    events = events_of(result.run_dir)
    with (result.run_dir / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for tag in events.Tags()["scalars"]:
        from_csv = [(int(row["step"]), float(row[tag])) for row in rows if row[tag]]
        assert from_csv == [(one.step, pytest.approx(one.value, rel=1e-6)) for one in events.Scalars(tag)], tag


def test_model_graph(tmp_path, compose_config) -> None:
    case = ["model=deep", "model.dropout=0.5", "trainer.max_steps=2"]
    events = events_of(mlp_lightning.train(compose_config(*case), tmp_path / "run").run_dir)
    names = [node.name for node in events.Graph().node]
    for layer in ("mlp", "linear_1", "norm_1", "gelu_1", "linear_6", "output"):
        assert any(layer in name for name in names), layer
    assert not any("preprocessor" in name for name in names)  # nothing in it learns


def test_histograms_on_request(tmp_path, compose_config) -> None:
    case = ["trainer.max_steps=25", "callbacks=histograms", "callbacks.histograms_every_n_steps=10"]
    events = events_of(mlp_lightning.train(compose_config(*case), tmp_path / "with").run_dir)
    tags = events.Tags()["histograms"]
    parameters = [f"layers.{layer}.{kind}" for layer in ("linear_1", "output") for kind in ("weight", "bias")]
    assert sorted(tags) == sorted(f"{what}/{name}" for what in ("weights", "gradients") for name in parameters)
    assert [one.step for one in events.Histograms("weights/layers.output.weight")] == [0, 10, 20]
    without = events_of(mlp_lightning.train(compose_config("trainer.max_steps=25"), tmp_path / "without").run_dir)
    assert without.Tags()["histograms"] == []


@pytest.mark.parametrize(("steps", "expected"), [(7, range(7)), (45, range(0, 45, 2)), (250, range(0, 250, 12))])
def test_histograms_of_short_runs(steps, expected, tmp_path, compose_config) -> None:
    case = [f"trainer.max_steps={steps}", "callbacks=histograms"]
    events = events_of(mlp_lightning.train(compose_config(*case), tmp_path / "run").run_dir)
    assert [one.step for one in events.Histograms("weights/layers.output.weight")] == list(expected)


@pytest.mark.parametrize(("logger", "has_events", "has_csv"), [("tensorboard", 1, 0), ("csv", 0, 1), ("none", 0, 0)])
def test_choice_of_loggers(logger, has_events, has_csv, tmp_path, compose_config) -> None:
    result = mlp_lightning.train(compose_config(f"logger={logger}", "trainer.max_steps=3"), tmp_path / "run")
    assert len(list(result.run_dir.glob("events.out.tfevents.*"))) == has_events
    assert (result.run_dir / "metrics.csv").exists() == bool(has_csv)


def session_groups(folder: Path) -> tuple[list[str], list[str], list[Any]]:
    """Columns and rows of the HParams tab: (hyperparameters, metrics, session groups), as its backend has them."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(folder))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request_context = context.RequestContext()
    content = backend.hparams_metadata(request_context, "")
    experiment = backend.experiment_from_metadata(request_context, "", True, content, None)
    request = proto.ListSessionGroupsRequest(
        start_index=0,
        slice_size=1000,
        allowed_statuses=[proto.STATUS_SUCCESS, proto.STATUS_FAILURE, proto.STATUS_RUNNING, proto.STATUS_UNKNOWN],
        col_params=[
            *(proto.ColParams(metric=info.name) for info in experiment.metric_infos),
            *(proto.ColParams(hparam=info.name) for info in experiment.hparam_infos),
        ],
    )
    groups = list_session_groups.Handler(request_context, backend, "", request).run().session_groups
    hyperparameter_names = [info.name for info in experiment.hparam_infos]
    return hyperparameter_names, [info.name.tag for info in experiment.metric_infos], list(groups)


def test_hparams_tab_lists_every_run_of_a_sweep(tmp_path, compose_config) -> None:
    """Every run has its hyperparameters, its final metrics and its real end."""
    results = {}
    for units, rate in ((5, 0.1), (7, 0.1), (5, 1e30)):
        name = f"{units}-{rate}"
        config = compose_config(
            "data=iris", f"model.hidden_units={units}", f"optimizer.lr={rate}", "trainer.max_epochs=5"
        )
        try:
            results[name] = mlp_lightning.train(config, tmp_path / name)
        except MLPLightningError:
            assert rate == 1e30
    mlp_lightning.train(compose_config("data=xor", "optimizer=adam", "trainer.max_steps=3"), tmp_path / "other")
    hyperparameter_names, metric_names, groups = session_groups(tmp_path)
    assert {"model.hidden_units", "optimizer.lr", "seed", "data.name", "optimizer.betas"} <= set(hyperparameter_names)
    assert {"loss/train", "loss/val", "loss/test", "accuracy/val"} <= set(metric_names)
    assert "hp_metric" not in metric_names
    rows = {group.name: group for group in groups}
    assert rows.keys() == {"5-0.1", "7-0.1", "5-1e+30", "other"}
    for name, result in results.items():
        units, rate = name.split("-", 1)
        assert rows[name].hparams["model.hidden_units"].number_value == float(units)
        assert rows[name].hparams["optimizer.lr"].number_value == float(rate)
        assert [session.status for session in rows[name].sessions] == [proto.STATUS_SUCCESS]
        final = {value.name.tag: value.value for value in rows[name].metric_values}
        for split, metrics in result.metrics.items():
            assert final[f"loss/{split}"] == pytest.approx(metrics["loss"], rel=1e-6)
            assert final[f"accuracy/{split}"] == pytest.approx(metrics["accuracy"], rel=1e-6)
    assert [session.status for session in rows["5-1e+30"].sessions] == [proto.STATUS_FAILURE]


def test_runs_of_a_sweep_are_called_by_the_keys_in_which_they_differ(tmp_path, compose_config) -> None:
    keys = "sweep.keys=[seed,model.hidden_units,optimizer.lr]"
    for number, (units, rate) in enumerate(((5, 0.1), ("[7,7]", 0.5))):
        config = compose_config(
            "data=iris", f"model.hidden_units={units}", f"optimizer.lr={rate}", "seed=3", "trainer.max_epochs=2", keys
        )
        result = mlp_lightning.train(config, tmp_path / str(number))
        assert "tensorboard --logdir" in (result.run_dir / "train.log").read_text()
    names, _, groups = session_groups(tmp_path)
    assert sorted(names) == ["model.hidden_units", "optimizer.lr", "seed"]
    assert {group.name for group in groups} == {
        "0/hidden_units=5 lr=0.1 seed=3",
        "1/hidden_units=[7, 7] lr=0.5 seed=3",
    }


@pytest.mark.parametrize(
    ("overrides", "keys", "expected"),
    [
        ((), (), ""),
        (
            ("optimizer=adam",),
            ("optimizer.name", "data.name", "model.depth"),
            "optimizer.name=Adam data.name=xor depth=1",
        ),
        (("data=sklearn", "data.target=a/b: c"), ("data.target",), "target=a_b_ c"),
        ((f"model.hidden_units={[11] * 40}",), ("model.hidden_units",), "hidden_units=[" + "11, " * 21 + "11"),
    ],
)
def test_names_of_runs_are_names_of_folders(compose_config, overrides, keys, expected) -> None:
    config = compose_config(*overrides, f"sweep.keys={list(keys)}")
    assert label(config) == expected


def test_a_run_that_continues_one_of_a_sweep_has_its_curves(tmp_path, compose_config) -> None:
    words = ["trainer.log_every_n_steps=5", "sweep.keys=[seed]"]
    mlp_lightning.train(compose_config(*words, "trainer.max_steps=20"), tmp_path / "first")
    checkpoint = f"ckpt_path={tmp_path / 'first' / 'checkpoints' / 'last.ckpt'}"
    mlp_lightning.train(compose_config(*words[:1], "trainer.max_steps=30", checkpoint), tmp_path / "second")
    steps = [one.step for one in events_of(tmp_path / "second").Scalars("loss/train")]
    assert steps[:5] == [0, 5, 10, 15, 20]


def test_session_that_has_not_ended_is_not_called_a_success(tmp_path, compose_config, monkeypatch) -> None:
    """What a killed run leaves: a start without an end."""
    monkeypatch.setattr("mlp_lightning.runs.metric_files.MetricFiles._write_end", lambda *_: None)
    mlp_lightning.train(compose_config("trainer.max_steps=3"), tmp_path / "run")
    _, _, groups = session_groups(tmp_path)
    assert [session.status for group in groups for session in group.sessions] == [proto.STATUS_UNKNOWN]


def test_hyperparameters_are_flat_and_of_plain_types(compose_config) -> None:
    flat = hyperparameters(compose_config("data=iris", "model.hidden_units=[8,4]", "optimizer=adam"))
    assert flat["model.hidden_units"] == "[8, 4]"
    assert flat["model.bias"] is True
    assert flat["optimizer.lr"] == 0.001
    assert flat["optimizer.betas"] == "[0.9, 0.999]"
    assert not {"name", "ckpt_path", "verbosity"} & flat.keys()
    assert all(isinstance(value, (str, bool, int, float)) for value in flat.values())
