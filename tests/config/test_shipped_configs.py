"""Every file in conf/ composes, is valid and trains."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from support.configurations import ComposeConfig, plain_config

from mlp_lightning import train
from mlp_lightning.config import (
    CallbacksConfig,
    CheckpointConfig,
    Config,
    CrossValidationConfig,
    CsvConfig,
    DataConfig,
    EarlyStoppingConfig,
    LoggerConfig,
    ModelConfig,
    SweepConfig,
    TrainerConfig,
    conf_dir,
    parse_complete,
    parse_config,
)
from mlp_lightning.config.inference import EvaluateConfig, ExplainConfig, ExportConfig, PredictConfig, ReportConfig
from mlp_lightning.config.names import SKLEARN_SETS
from mlp_lightning.config.schedules import SCHEDULES
from mlp_lightning.config.schema import OF_MLP
from mlp_lightning.errors import ConfigError

# "hydra" holds options of Hydra itself, which are no part of a run's configuration.
GROUPS = sorted(folder.name for folder in conf_dir().iterdir() if folder.is_dir() and folder.name != "hydra")


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))


CHOICES = [f"{group}={option}" for group in GROUPS for option in options(group)]
# What a choice needs; everything else must work with the defaults.
COMPANIONS = {
    "search=halving": ["data=iris"],
    "callbacks=early_stopping": ["data=iris"],
    "model=own": ["model._target_=my_package.parts.GatedNet", "allow_targets=[my_package]"],
    "optimizer=own": ["optimizer._target_=my_package.parts.SignDescent", "allow_targets=[my_package]"],
    "data=table": ["data.path=rows.csv", "data.target=species"],
}


def with_companions(choice: str) -> list[str]:
    return [choice, *COMPANIONS.get(choice, [])]


def test_the_groups_of_a_run_are_all_there() -> None:
    wanted = {"callbacks", "data", "experiment", "logger", "model", "optimizer", "scheduler", "trainer"}
    assert wanted <= set(GROUPS)
    assert all(options(group) for group in GROUPS)


@pytest.fixture(scope="module", params=CHOICES)
def composed(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What Hydra composes of each choice, once for the tests that only read it."""
    return plain_config(with_companions(request.param))


def test_every_file_is_valid_and_survives_being_written_and_read(composed: dict[str, Any]) -> None:
    """A run folder's config.yaml must record what was trained."""
    config = parse_config(composed)
    # What may be imported is not written: who reads it has to say it again.
    allowed = {"allow_targets": config.allow_targets}
    assert parse_config({**yaml.safe_load(yaml.safe_dump(config.to_dict())), **allowed}) == config


@pytest.fixture
def rows_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The table that COMPANIONS name, in the folder of the test."""
    lines = ["length,colour,species"]
    lines += [f"{number / 7:.3f},{'red' if number % 3 else 'blue'},{'ab'[number % 2]}" for number in range(40)]
    file = tmp_path / "rows.csv"
    file.write_text("\n".join([*lines, ""]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return file


# Every model with data sets that name three different ones, every data set with a model that none names.
PAIRS = sorted(
    {
        *itertools.product([one for one in options("model") if one != "own"], ["xor", "iris", "table"]),
        *(("deep", one) for one in options("data")),
    }
)


@pytest.mark.parametrize(("model", "data"), PAIRS)
def test_every_model_goes_with_every_data_set(model: str, data: str, compose_config: ComposeConfig) -> None:
    # A data set names the model that suits it; a model that the user names wins.
    file = yaml.safe_load((conf_dir() / "model" / f"{model}.yaml").read_text(encoding="utf-8"))
    del file["defaults"]
    config = compose_config(f"model={model}", *with_companions(f"data={data}"))
    assert dataclasses.asdict(config.model) == {**dataclasses.asdict(ModelConfig()), **file}
    assert config.data.name == ("wine" if data == "sklearn" else data)


def test_every_file_sets_all_keys_of_its_section(composed: dict[str, Any]) -> None:
    """Hydra overrides only keys that are there: a missing one could be set with ``+`` alone."""
    schedule = SCHEDULES[composed["scheduler"]["name"]]
    sections = {
        **{"model": ModelConfig, "data": DataConfig, "trainer": TrainerConfig, "callbacks": CallbacksConfig},
        **{"logger": LoggerConfig, "sweep": SweepConfig, "scheduler": schedule},
    }
    for name, section in sections.items():
        expected = {field.name for field in dataclasses.fields(section)}
        if "_target_" in composed[name]:  # the options of the MLP are those of the user's own class then
            expected = {*expected, "_target_"} - {*OF_MLP}
        assert set(composed[name]) == expected, name
    assert set(composed) == {field.name for field in dataclasses.fields(Config)}
    for name, section in (("csv", CsvConfig), ("cv", CrossValidationConfig)):
        assert set(composed["data"][name]) == {field.name for field in dataclasses.fields(section)}
    for name, section in (("checkpoint", CheckpointConfig), ("early_stopping", EarlyStoppingConfig)):
        if composed["callbacks"][name] is not None:
            assert set(composed["callbacks"][name]) == {field.name for field in dataclasses.fields(section)}


class SeesEngine(pl.Callback):
    """Which optimizer trains, and whether it has a schedule."""

    optimizer = ""
    has_schedule = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.optimizer = type(trainer.optimizers[0]).__name__
        self.has_schedule = pl_module.engine.loop.schedule is not None


# trainer=gpu trains where there is a GPU; without one it can only be composed. preset=best is several trainings, of
# which tests/ensembles/test_best.py runs some, and a search is many, which tests/sweeps/search runs.
@pytest.mark.parametrize(
    "choice", [one for one in CHOICES if one not in ("trainer=gpu", "preset=best") and not one.startswith("search=")]
)
def test_every_file_trains(choice: str, tmp_path: Path, rows_file: Path, compose_config: ComposeConfig) -> None:
    group = choice.split("=")[0]
    # Histograms are written for TensorBoard alone.
    surroundings = {"trainer": "cpu", "logger": "tensorboard" if choice == "callbacks=histograms" else "none"}
    others = [f"{name}={option}" for name, option in surroundings.items() if name != group]
    config = compose_config(*with_companions(choice), *others, "trainer.max_steps=2")
    seen = SeesEngine()
    result = train(config, tmp_path / "run", callbacks=[seen])
    assert (result.status, result.steps) == ("finished", 2)
    assert seen.optimizer == config.optimizer.name
    assert seen.has_schedule == (config.scheduler.name != "none")


# ---- the schema has the defaults ---------------------------------------------------------------------


def test_default_files_are_the_defaults_of_the_schema(compose_config: ComposeConfig) -> None:
    config = compose_config()
    assert config.callbacks == CallbacksConfig()
    assert config.logger == LoggerConfig()
    assert config.report_weights == Config().report_weights
    # xor decides the length and the intervals.
    of_the_data_set = ("max_steps", "max_epochs", "log_every_n_steps", "print_every_n_steps")
    ours, expected = dataclasses.asdict(config.trainer), dataclasses.asdict(TrainerConfig())
    for name in of_the_data_set:
        del ours[name], expected[name]
    assert ours == expected


@pytest.mark.parametrize("name", SCHEDULES)
def test_scheduler_files_are_the_defaults_of_the_schema(name: str, compose_config: ComposeConfig) -> None:
    assert compose_config(f"scheduler={name}").scheduler == SCHEDULES[name]()


ALONE = ("model", "trainer", "callbacks", "logger", "data")  # the others build on files, which they change


@pytest.mark.parametrize(("group", "option"), [(group, one) for group in ALONE for one in options(group)])
def test_files_say_only_what_differs_from_the_schema(group: str, option: str) -> None:
    content = yaml.safe_load((conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8")) or {}
    if any(isinstance(one, str) for one in content.pop("defaults", [])):
        return  # says what differs from the file that it begins with
    defaults = flat(Config().to_dict())
    said = flat(content if group == "data" else {group: content})
    assert not [key for key, value in said.items() if defaults.get(key, "") == value and key != "data.name"]


def flat(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones."""
    keys: dict[str, Any] = {}
    for name, value in plain.items():
        keys |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return keys


@pytest.mark.parametrize("group", ["evaluate", "explain", "predict", "export", "report"])
def test_files_of_the_other_commands_are_the_defaults_of_the_schema(group: str) -> None:
    with initialize_config_dir(version_base=None, config_dir=str(conf_dir()), job_name=group):
        content = OmegaConf.to_container(compose(group))
    configs = EvaluateConfig, ExplainConfig, PredictConfig, ExportConfig, ReportConfig
    options_of = dict(zip(("evaluate", "explain", "predict", "export", "report"), configs, strict=True))[group]
    assert content == dataclasses.asdict(options_of())


# ---- tables ----------------------------------------------------------------------------------------------

TABLES = [one for one in options("data") if one not in ("xor", "iris", "parity", "spirals")]


@pytest.mark.parametrize("data", TABLES)
def test_every_table_has_the_recipe_of_tables(data: str, compose_config: ComposeConfig) -> None:
    config = compose_config(*with_companions(f"data={data}"))
    assert (config.model.layer_widths, config.model.activation) == ([128, 128], "silu")
    assert (config.optimizer.name, config.optimizer.lr, config.scheduler.name) == ("AdamW", 0.005, "one_cycle")
    assert config.trainer.label_smoothing == "auto"
    assert (config.trainer.max_steps, config.trainer.max_epochs) == (None, 45)
    if data != "table":
        assert (config.data.path, config.data.target) == (None, None)
    if data != "parity":
        assert (config.data.batch_size, config.data.val_fraction, config.data.test_fraction) == ("auto", 0.15, 0.15)


def test_tables_are_read_as_the_schema_says(composed_table: dict[str, Any]) -> None:
    for name, section in (("csv", CsvConfig), ("cv", CrossValidationConfig)):
        assert getattr(parse_config(composed_table).data, name) == section()


@pytest.fixture(scope="module")
def composed_table() -> dict[str, Any]:
    return plain_config(with_companions("data=table"))


def test_a_table_without_path_and_target_reports_both(compose_config: ComposeConfig) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config("data=table")
    assert [fault.key for fault in caught.value.faults] == ["data.path", "data.target"]


@pytest.mark.parametrize("name", SKLEARN_SETS)
def test_tables_of_scikit_learn_by_their_name(name: str, compose_config: ComposeConfig) -> None:
    config = compose_config("data=sklearn", f"data.name={name}")
    assert config.name == config.data.name == name


def test_user_settings_win_over_the_recipe_of_tables(compose_config: ComposeConfig) -> None:
    given = ["model=wide", "optimizer=sgd", "scheduler=none", "trainer.max_epochs=3", "trainer.label_smoothing=0"]
    config = compose_config(*with_companions("data=table"), *given)
    assert config.model.layer_widths == [100]
    assert (config.optimizer.name, config.optimizer.lr, config.scheduler.name) == ("SGD", 0.1, "none")
    assert (config.trainer.max_epochs, config.trainer.label_smoothing) == (3, 0.0)


@pytest.mark.parametrize("model", ["mlp", "wide"])
def test_embeddings_go_with_every_model_file(model: str, compose_config: ComposeConfig) -> None:
    given = [f"model={model}", "data=moons", "model.numeric_embedding=periodic", "model.embedding_size=4"]
    config = compose_config(*given)
    assert (config.model.numeric_embedding, config.model.embedding_size) == ("periodic", 4)


# ---- precedence ------------------------------------------------------------------------------------------


def test_iris_brings_its_defaults(compose_config: ComposeConfig) -> None:
    config = compose_config("data=iris")
    assert config.name == "iris"
    assert config.seed == 0
    assert config.model.layer_widths == [100]
    assert config.optimizer.lr == 0.1
    assert (config.data.val_fraction, config.data.test_fraction, config.data.scaling) == (0.2, 0.2, "standard")
    assert (config.trainer.max_steps, config.trainer.max_epochs) == (None, 100)
    assert config.trainer.log_every_n_steps == 1


@pytest.mark.parametrize("data", options("data"))
def test_trainer_debug_overrides_what_the_data_set_suggests(data: str, compose_config: ComposeConfig) -> None:
    trainer = compose_config(*with_companions(f"data={data}"), "trainer=debug").trainer
    assert trainer.max_steps == 10
    assert (trainer.log_every_n_steps, trainer.print_every_n_steps, trainer.steps_per_execution) == (1, 1, 1)
    assert trainer.accelerator == "cpu"


def test_command_line_overrides_what_trainer_debug_sets(compose_config: ComposeConfig) -> None:
    trainer = compose_config("trainer=debug", "trainer.max_steps=3", "trainer.log_every_n_steps=2").trainer
    assert (trainer.max_steps, trainer.log_every_n_steps, trainer.print_every_n_steps) == (3, 2, 1)


def test_command_line_overrides_what_an_experiment_sets(compose_config: ComposeConfig) -> None:
    config = compose_config("experiment=iris_hidden_units", "data.val_fraction=0.3", "name=mine", "optimizer=adam")
    assert (config.data.val_fraction, config.data.test_fraction) == (0.3, 0.0)
    assert config.name == "mine"
    assert config.optimizer.name == "Adam"


def test_seed_zero_replaces_the_seed_of_the_data_set(compose_config: ComposeConfig) -> None:
    assert compose_config("data=xor", "seed=0").seed == 0


def test_learning_rate_of_the_data_set_is_for_the_optimizer_that_it_names(compose_config: ComposeConfig) -> None:
    assert compose_config("data=xor", "optimizer=sgd").optimizer.lr == 1.0
    adam = compose_config("data=xor", "optimizer=adam").optimizer
    assert (adam.name, adam.lr) == ("Adam", 0.001)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_given_learning_rate_wins(optimizer: str, compose_config: ComposeConfig) -> None:
    config = compose_config("data=xor", f"optimizer={optimizer}", "optimizer.lr=0.01")
    assert config.optimizer.lr == 0.01


def test_order_of_the_words_does_not_matter(compose_config: ComposeConfig) -> None:
    words = ["model=mlp", "optimizer=adam", "data=iris"]
    configs = [compose_config(*order) for order in itertools.permutations(words)]
    assert all(config == configs[0] for config in configs)
    assert (configs[0].model.hidden_units, configs[0].optimizer.name) == (2, "Adam")


# ---- widths and depth ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "widths"),
    [
        (["model=mlp", "model.hidden_units=7"], [7]),
        (["model=wide_deep", "model.hidden_units=4"], [4, 4, 4]),
        (["model=wide_deep", "model.hidden_units=4", "model.depth=2"], [4, 4]),
        (["model=mlp", "model.depth=3"], [2, 2, 2]),
        (["model=mlp", "model.hidden_units=[3,5,7]"], [3, 5, 7]),
        (["model=wide_deep", "model.hidden_units=[3,5]"], [3, 5]),
        (["model=wide_deep", "model.hidden_units=[3,5]", "model.depth=2"], [3, 5]),
        (["model=deep"], [32] * 6),
        (["model=linear"], []),
        (["model=linear", "model.hidden_units=[6]"], [6]),
        (["model=linear", "model.hidden_units=6", "model.depth=2"], [6, 6]),
    ],
)
def test_widths_and_depth(overrides: list[str], widths: list[int], compose_config: ComposeConfig) -> None:
    model = compose_config(*overrides).model
    assert model.layer_widths == widths
    assert model.depth == len(widths)


def test_a_width_without_a_depth_is_one_hidden_layer() -> None:
    model = parse_config({"model": {"hidden_units": 4}, "trainer": {"max_steps": 1}}).model
    assert (model.layer_widths, model.depth) == ([4], 1)


# ---- length of the run -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "steps", "epochs"),
    [
        (["data=iris", "trainer.max_steps=1000"], 1000, None),
        (["data=xor", "trainer.max_epochs=5"], None, 5),
        (["data=iris", "trainer.max_steps=1000", "trainer.max_epochs=7"], 1000, 7),
        (["data=xor", "trainer.max_steps=3", "trainer.max_epochs=7"], 3, 7),
        # null takes a limit away; it is not a length that could replace the other one.
        (["data=xor", "trainer.max_epochs=null"], 10001, None),
        (["data=xor", "trainer.max_steps=null", "trainer.max_epochs=7"], None, 7),
        (["data=iris", "++trainer.max_steps=1000"], 1000, None),
        (["experiment=iris_hidden_units", "trainer.max_steps=1000"], 1000, None),
    ],
)
def test_a_given_length_replaces_the_suggested_one(
    overrides: list[str], steps: int | None, epochs: int | None, compose_config: ComposeConfig
) -> None:
    trainer = compose_config(*overrides).trainer
    assert (trainer.max_steps, trainer.max_epochs) == (steps, epochs)


def test_lengths_that_nobody_gave_are_both_kept() -> None:
    trainer = parse_complete({"trainer": {"max_steps": 3, "max_epochs": 7}}).trainer
    assert (trainer.max_steps, trainer.max_epochs) == (3, 7)
