"""The protocol with every engine, and which one is chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from support.configurations import ComposeConfig
from support.run_folders import assert_same_run
from support.tolerances import assert_close, assert_same_bits

import mlp_lightning
from mlp_lightning.engines.choice import Work, choose_engine
from mlp_lightning.errors import ConfigError
from mlp_lightning.runs import train_stack
from mlp_lightning.runs.checkpoints import read_checkpoint

ENGINES = ("autograd", "stacked", "compiled")
IRIS = ["data=iris", "data.batch_size=32", "logger.graph=false", "trainer.threads=1"]
CASES = {
    "full batch": ["data=xor", "model=wide_deep", "trainer.max_steps=60", "logger.graph=false"],
    "batches, adam": [*IRIS, "optimizer=adam", "trainer.max_epochs=6"],
    "ends within an epoch": [*IRIS, "trainer.max_steps=16", "scheduler=plateau", "scheduler.patience=0"],
    "dropout": [*IRIS, "model.dropout=0.2", "trainer.max_epochs=5", "trainer.accumulate_grad_batches=2"],
    "clipping": [*IRIS, "trainer.gradient_clip_val=0.1", "optimizer.momentum=0.9", "trainer.max_epochs=5"],
    "early stopping": [
        *(*IRIS, "callbacks=early_stopping", "callbacks.early_stopping.patience=1", "report_weights=best"),
        *("callbacks.early_stopping.min_delta=0.05", "trainer.max_epochs=20"),
    ],
    "early stopping by the training loss": [
        *(*IRIS, "callbacks=early_stopping", "callbacks.early_stopping.patience=1", "data.val_fraction=0"),
        *("callbacks.early_stopping.monitor=loss/train", "callbacks.early_stopping.min_delta=0.05"),
    ],
    "training loss": [*IRIS, "callbacks.checkpoint.monitor=loss/train", "callbacks.checkpoint.every_n_steps=7"],
    "double precision": [*IRIS, "trainer.precision=64", "scheduler=one_cycle", "trainer.max_epochs=5"],
}


@pytest.mark.parametrize("case", CASES)
def test_a_single_run_is_the_same_with_each_engine(case: str, tmp_path: Path, compose_config: ComposeConfig) -> None:
    """The same files, keys, tags and checkpoints, and the same numbers to rounding."""
    results = {
        engine: mlp_lightning.train(compose_config(*CASES[case], f"trainer.engine={engine}"), tmp_path / engine)
        for engine in ENGINES
    }
    for engine, result in results.items():
        assert read_checkpoint(result.run_dir / "checkpoints" / "last.ckpt")["engine"] == engine
        assert json.loads((result.run_dir / "result.json").read_text())["engine"] == engine
        log = (result.run_dir / "train.log").read_text()
        assert f"Engine: {engine} (as trainer.engine says)" in log
        # The entries that name the engine differ on purpose.
        for path in (result.run_dir / "config.yaml", *result.run_dir.glob("checkpoints/*.ckpt")):
            _rename_engine(path)
    for engine in ENGINES[1:]:
        assert_same_run(tmp_path / engine, tmp_path / "autograd", has_session=False)


@pytest.mark.parametrize(("threads", "printed"), [("auto", "1 CPU thread\n"), ("2", "2 CPU threads\n")])
def test_the_threads_of_a_run_are_printed(
    threads: str, printed: str, tmp_path: Path, compose_config: ComposeConfig
) -> None:
    overrides = ["trainer=cpu", "data=xor", "trainer.max_steps=2", "trainer.engine=explicit", "logger=none"]
    mlp_lightning.train(compose_config(*overrides, f"trainer.threads={threads}"), tmp_path / "run")
    assert f"Engine: explicit (as trainer.engine says), {printed}" in (tmp_path / "run" / "train.log").read_text()


def _rename_engine(path: Path) -> None:
    if path.suffix == ".yaml":
        text = path.read_text(encoding="utf-8")
        for engine in ENGINES:
            text = text.replace(f"engine: {engine}", "engine: autograd")
        path.write_text(text, encoding="utf-8")
        return
    content = torch.load(path, weights_only=True)
    content["config"]["trainer"]["engine"] = "autograd"
    torch.save(content, path)


class Halfway(pl.Callback):
    """Saves the state of the engine after some execution, or replaces it by one that was saved."""

    def __init__(self, step: int, state: dict[str, Any] | None = None) -> None:
        self.step = step
        self.state = state
        self.restores = state is not None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step != self.step:
            return
        if self.restores:
            pl_module.engine.restore(self.state)
        else:
            self.state = _copied(pl_module.engine.save())


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("engine", ENGINES)
def test_saved_state_continues_to_the_same_bits(engine: str, tmp_path: Path, compose_config: ComposeConfig) -> None:
    """A run with other weights and another optimizer state ends as the saved one after it takes over its state."""
    case = [*IRIS, "optimizer=adam", "scheduler=plateau", "trainer.max_steps=18"]
    case += ["model.dropout=0.1", f"trainer.engine={engine}", "trainer.steps_per_execution=6"]
    saving = Halfway(6)
    whole = mlp_lightning.train(compose_config(*case), tmp_path / "whole", callbacks=[saving])
    other = compose_config(*case, "model.init=xavier_uniform")
    restored = mlp_lightning.train(other, tmp_path / "restored", callbacks=[Halfway(6, saving.state)])
    assert whole.module is not None
    assert restored.module is not None
    for one, two in zip(whole.module.parameters(), restored.module.parameters(), strict=True):
        assert one.detach().numpy().tobytes() == two.detach().numpy().tobytes()
    assert whole.metrics == restored.metrics


SMALL, LARGE, SHORT = Work([4, 8, 3], 90, 20_000), Work([4, 2048, 2048, 3], 90, 1000), Work([4, 8, 3], 90, 20)


def test_choice(compose_config: ComposeConfig) -> None:
    config = compose_config("data=iris")
    assert choose_engine(config, 1, SHORT) == ("explicit", "1 run")
    assert choose_engine(config, 1, SHORT, is_on_cpu=False) == ("autograd", "explicit is for CPUs")
    own = compose_config("data=iris", "model.activation=mish")
    reason = "the gradient of model.activation = mish is not written out"
    assert choose_engine(own, 1, SHORT) == ("autograd", reason)
    asked = compose_config("data=iris", "trainer.engine=stacked")
    assert choose_engine(asked, 1, SHORT) == ("stacked", "as trainer.engine says")
    asked, embedding = compose_config("data=iris", "trainer.engine=compiled"), "a learned embedding"
    with pytest.raises(ConfigError, match=r"trainer\.engine.*a learned embedding.*trainer\.engine=stacked"):
        choose_engine(asked, 1, SHORT, embedding)
    assert choose_engine(config, 70, SMALL, embedding) == ("stacked", f"70 runs together; {embedding}")


def test_choice_for_a_stack(compose_config: ComposeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the work that there is."""
    config = compose_config("data=iris")
    assert choose_engine(config, 70, SMALL) == ("compiled", "70 runs together")
    assert choose_engine(config, 70, SHORT) == ("stacked", "70 runs together")
    assert choose_engine(config, 7, LARGE) == ("stacked", "7 runs together")
    assert choose_engine(config, 7, SMALL, is_on_cpu=False) == ("stacked", "7 runs together; compiled is for CPUs")
    assert choose_engine(compose_config("data=iris", "model.dropout=0.1"), 7, SMALL).name == "compiled"
    normal = compose_config("data=iris", "model.norm=batch")
    reason = "7 runs together; model.norm = batch is not in the compiled kernel"
    assert choose_engine(normal, 7, SMALL) == ("stacked", reason)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose_engine(config, 7, SMALL) == ("stacked", "7 runs together; llvmlite is not installed")
    asked = compose_config("data=iris", "trainer.engine=compiled")
    with pytest.raises(ConfigError, match=r"'compiled' cannot train this run: llvmlite is not installed"):
        choose_engine(asked, 7, SMALL)


def test_engine_that_cannot_train_the_run_is_refused(tmp_path: Path, compose_config: ComposeConfig) -> None:
    config = compose_config("data=iris", "trainer.engine=compiled", "model.norm=batch")
    with pytest.raises(
        ConfigError, match=r"model\.norm = batch is not in the compiled kernel.*trainer\.engine=stacked"
    ):
        mlp_lightning.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


CONTINUED = {
    "adam, dropout": [*IRIS, "optimizer=adam", "model.dropout=0.2", "scheduler=step", "scheduler.step_size=2"],
    "momentum": [*IRIS, "optimizer.momentum=0.9", "optimizer.dampening=0.2", "scheduler=plateau"],
    "nadam": [*IRIS, "optimizer=nadam", "optimizer.lr=0.002"],
    "no state": ["data=xor", "model=wide_deep", "logger.graph=false"],
}


@pytest.mark.parametrize("case", CONTINUED)
@pytest.mark.parametrize("first", ENGINES)
def test_a_run_continues_with_any_engine(case: str, first: str, tmp_path: Path, compose_config: ComposeConfig) -> None:
    """The checkpoint of a stack of one is that of any run; the engine that it is of continues to the same bits."""
    words = [*CONTINUED[case], "trainer.precision=64"]

    def weights(name: str, engine: str, steps: int, *more: str) -> Any:
        config = compose_config(*words, f"trainer.engine={engine}", f"trainer.max_steps={steps}", *more)
        result = mlp_lightning.train(config, tmp_path / name)
        return read_checkpoint(result.run_dir / "checkpoints" / "last.ckpt")["state_dict"]

    weights("part", first, 9)
    whole = weights("whole", first, 20)
    for engine in ENGINES:
        rest = weights(f"rest with {engine}", engine, 20, f"ckpt_path={tmp_path}/part/checkpoints/last.ckpt")
        for name, weight in rest.items():
            if engine == first:
                assert_same_bits(weight, whole[name])
            else:
                assert_close(weight, whole[name], 1e-9)


def test_stack_asked_to_use_autograd_is_refused(tmp_path: Path, compose_config: ComposeConfig) -> None:
    config = compose_config("data=iris", "trainer.engine=autograd")
    with pytest.raises(ValueError, match=r"trainer\.engine = autograd"):
        train_stack([config, config], [tmp_path / "a", tmp_path / "b"])


class Validates(pl.Callback):
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None: ...


class ClipsGradients(pl.Callback):
    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None: ...


def test_hook_of_steps_that_is_never_called_is_refused(tmp_path: Path, compose_config: ComposeConfig) -> None:
    with pytest.raises(ValueError, match=r"ClipsGradients\.on_after_backward is never called: optimizer steps"):
        mlp_lightning.train(compose_config("data=iris"), tmp_path / "run", callbacks=[ClipsGradients()])


def test_hook_that_is_never_called_is_refused(tmp_path: Path, compose_config: ComposeConfig) -> None:
    config = compose_config("data=iris")
    with pytest.raises(ValueError, match=r"Validates\.on_validation_end is never called.*outputs"):
        mlp_lightning.train(config, tmp_path / "run", callbacks=[Validates()])
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="never called"):
        train_stack([config] * 2, [tmp_path / "a", tmp_path / "b"], callbacks=[Validates()])


def test_callbacks_see_steps_and_validations(tmp_path: Path, compose_config: ComposeConfig) -> None:
    steps: list[int] = []
    validations: list[tuple[int, float]] = []

    class Sees(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
            for trace, members in outputs["outputs"].traces:
                assert list(members) == [0]
                steps.extend(range(trace.first_step, trace.next_step))
            validations.extend((one.step, one.metrics["loss"][0]) for one in outputs["outputs"].validations)

    result = mlp_lightning.train(compose_config(*IRIS, "trainer.max_steps=10"), tmp_path / "run", callbacks=[Sees()])
    assert steps == list(range(10))
    assert [step for step, _ in validations] == [3, 6, 9, 10]
    assert validations[-1][1] == pytest.approx(result.metrics["val"]["loss"])


class Stops(pl.Callback):
    """Ends the training as callbacks of Lightning do."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= 6


def test_callback_that_stops_the_training_finishes_it(tmp_path: Path, compose_config: ComposeConfig) -> None:
    config = compose_config(*IRIS, "trainer.max_steps=20", "trainer.steps_per_execution=3")
    one = mlp_lightning.train(config, tmp_path / "run", callbacks=[Stops()])
    stack = train_stack([config] * 2, [tmp_path / "a", tmp_path / "b"], callbacks=[Stops()])
    assert {(result.status, result.steps) for result in (one, *stack)} == {("finished", 6)}
    assert all((result.run_dir / "checkpoints" / "last.ckpt").is_file() for result in (one, *stack))


class Raises(pl.Callback):
    """Fails in one of its hooks."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self.fail)

    def fail(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("a mistake in a callback")


@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_train_start", "on_train_batch_end", "on_train_end"])
def test_error_of_a_callback_is_that_of_the_run(hook: str, tmp_path: Path, compose_config: ComposeConfig) -> None:
    """At any time, also before the engine exists."""
    with pytest.raises(RuntimeError, match="a mistake in a callback"):
        mlp_lightning.train(
            compose_config("data=iris", "trainer.max_steps=4"), tmp_path / "run", callbacks=[Raises(hook)]
        )
    recorded = json.loads((tmp_path / "run" / "result.json").read_text())
    if hook == "on_train_end":  # by then the run has ended, and its folder is complete
        assert recorded["status"] == "finished"
    else:
        assert (recorded["status"], recorded["error"]) == ("failed", "RuntimeError: a mistake in a callback")
