"""The check of overrides with several values, and of overrides that choose the user's own configuration files."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.override_faults import fault_of, faults_of

from mlp_lightning.config.overrides import check_command, check_overrides
from mlp_lightning.errors import ConfigError, Fault


@pytest.fixture
def user_folder(tmp_path: Path) -> Path:
    """A user's folder with a model and an optimizer."""
    files = {
        "model/tower.yaml": "hidden_units: [6, 4]\ndepth: 2\nactivation: tanh\ndropout: 0.0\n"
        "norm: none\nbias: true\ninit: default\n",
        "model/broken.yaml": "hidden_units: 0\n",
        "optimizer/radam.yaml": "name: RAdam\nlr: 0.01\nbetas: [0.8, 0.9]\n",
    }
    for name, text in files.items():
        file = tmp_path / "own" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path / "own"


# ---- sweeps ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("model.hidden_units=1,2", "model.hidden_units"),
        ("model=mlp,wide", "model"),
        ("seed=range(0,3)", "seed"),
        ("seed=choice(1,2)", "seed"),
        ("optimizer.lr=interval(0,1)", "optimizer.lr"),
        ("model=glob(w*)", "model"),
    ],
)
def test_several_values_without_multirun(override: str, key: str) -> None:
    fault = fault_of(override)
    assert (fault.key, fault.rule) == (key, "is several values")
    assert fault.hint == "add -m (or --multirun) to run each of them"


def test_several_values_without_multirun_hide_no_other_fault() -> None:
    keys = [fault.key for fault in faults_of("model.hidden_units=1,2", "trainer.max_steps=0")]
    assert sorted(keys) == ["model.hidden_units", "trainer.max_steps"]


def test_sweep_returns_the_configuration_of_its_first_run() -> None:
    config = check_overrides(["data=iris,xor", "model.hidden_units=5,10", "seed=range(3,6)"], multirun=True)
    assert (config.data.name, config.model.layer_widths, config.seed) == ("iris", [5], 3)


def test_one_value_is_a_sweep_too() -> None:
    assert check_overrides(["model.hidden_units=5"], multirun=True).model.layer_widths == [5]


def test_every_swept_value_is_checked() -> None:
    faults = faults_of("model.hidden_units=5,x,0,7,[3,-1]", "optimizer.lr=0.1,-1", "seed=choice(0,1.5)", multirun=True)
    assert [(fault.key, fault.value) for fault in faults] == [
        ("model.hidden_units", "x"),
        ("model.hidden_units", 0),
        ("model.hidden_units", [3, -1]),
        ("optimizer.lr", -1),
        ("seed", 1.5),
    ]


def test_first_swept_value_is_checked_and_hides_no_other() -> None:
    faults = faults_of("model.hidden_units=0,x,5", multirun=True)
    assert [fault.value for fault in faults] == [0, "x"]


def test_swept_range_is_checked_to_its_end() -> None:
    assert [fault.value for fault in faults_of("seed=range(1,-2,-1)", multirun=True)] == [-1]


def test_every_swept_option_of_a_group_is_known() -> None:
    faults = faults_of("model=wide,wid,dep", "data=irs,iris", multirun=True)
    assert [(fault.key, fault.value) for fault in faults] == [("model", "wid"), ("model", "dep"), ("data", "irs")]


@pytest.mark.parametrize("data", ["iris,xor", "xor,iris"])
def test_every_swept_option_of_a_group_is_composed(data: str) -> None:
    fault = fault_of(f"data={data}", "data.val_fraction=0.2", multirun=True)
    assert fault == Fault("data.val_fraction", 0.2, "must be 0 for xor, whose rows are all training rows")


def test_swept_values_may_contradict_what_is_fixed() -> None:
    fault = fault_of("model.hidden_units=[3],[3,4]", "model.depth=1", multirun=True)
    assert (fault.key, fault.value) == ("model.depth", 1)


def test_a_fault_that_all_runs_share_is_reported_once() -> None:
    assert fault_of("trainer.max_steps=0", "model.hidden_units=1,2,3", "model=mlp,wide", multirun=True).key == (
        "trainer.max_steps"
    )


def test_swept_key_replaces_the_suggested_length() -> None:
    trainer = check_overrides(["data=iris", "trainer.max_steps=10,20"], multirun=True).trainer
    assert (trainer.max_steps, trainer.max_epochs) == (10, None)


def test_search_spaces_are_left_to_the_sweeper() -> None:
    space = "optimizer.lr=interval(0.001,0.1)"
    assert check_overrides([space, "hydra/sweeper=basic"], multirun=True) == check_overrides(["optimizer.lr=0.001"])
    for end in ("interval(-1,0.1)", "tag(log,interval(0.1,-2))"):
        assert fault_of(f"optimizer.lr={end}", "search=random", multirun=True).rule == "must be at least 0"
    fault = fault_of(space, multirun=True)
    assert (fault.key, fault.rule) == ("optimizer.lr", "is a search space and not a list of values")


def test_a_file_may_ask_for_a_sweep(user_folder: Path) -> None:
    command = check_command(["experiment=iris_hidden_units", "seed=1,2"])
    assert (command.is_sweep, command.is_sweep_by_file, command.config.seed) == (True, True, 1)
    command = check_command(["model.hidden_units=1,2"], multirun=True)
    assert (command.is_sweep, command.is_sweep_by_file) == (True, False)
    command = check_command(["experiment=iris_hidden_units", "hydra.mode=RUN"])
    assert (command.is_sweep, command.config.model.layer_widths) == (False, [100])
    assert fault_of("experiment=iris_hidden_units", "hydra.mode=RUN", "seed=1,2").rule == "is several values"


def test_values_that_a_file_sweeps_are_checked(user_folder: Path) -> None:
    text = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: {model.depth: '1,-1', seed: x}\n"
    file = user_folder / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    faults = faults_of("experiment=mine", config_dir=user_folder)
    assert [(fault.key, fault.value) for fault in faults] == [("model.depth", -1), ("seed", "x")]
    assert check_overrides(["experiment=mine", "model.depth=2", "seed=3"], config_dir=user_folder).model.depth == 2


# ---- the user's own configuration files ------------------------------------------------------------------


def test_user_option(user_folder: Path) -> None:
    config = check_overrides(["model=tower", "optimizer=radam"], config_dir=user_folder)
    assert (config.model.layer_widths, config.model.activation) == ([6, 4], "tanh")
    assert (config.optimizer.name, config.optimizer.options) == ("RAdam", {"betas": [0.8, 0.9]})


def test_shipped_options_remain_beside_user_options(user_folder: Path) -> None:
    assert check_overrides(["model=wide"], config_dir=user_folder).model.layer_widths == [100]


def test_values_of_user_options_are_checked(user_folder: Path) -> None:
    (fault,) = faults_of("model=broken", config_dir=user_folder)
    assert (fault.key, fault.value) == ("model.hidden_units", 0)


def test_user_options_are_offered(user_folder: Path) -> None:
    (fault,) = faults_of("model=towr", config_dir=user_folder)
    assert "tower" in fault.rule
    assert fault.hint == "did you mean tower?"


def test_user_option_is_unknown_without_its_folder() -> None:
    assert fault_of("model=tower").key == "model"


def test_user_options_may_be_swept_over(user_folder: Path) -> None:
    config = check_overrides(["model=mlp,tower"], multirun=True, config_dir=user_folder)
    assert config.model.layer_widths == [2]
    (fault,) = faults_of("model=mlp,broken", multirun=True, config_dir=user_folder)
    assert (fault.key, fault.value) == ("model.hidden_units", 0)


def test_user_folder_given_to_hydra(user_folder: Path) -> None:
    config = check_overrides([f"hydra.searchpath=[file://{user_folder}]", "model=tower"])
    assert config.model.layer_widths == [6, 4]


def test_missing_user_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        check_overrides([], config_dir=tmp_path / "nowhere")


def test_options_of_a_group_differ_in_their_keys() -> None:
    checked = check_command(["data=xor", "model=wide,deep", "optimizer.lr=0.1,0.2", "seed=3"], multirun=True)
    assert checked.swept == {"model", "optimizer.lr"}
    of_model = {"model.hidden_units", "model.depth", "model.activation", "model.norm"}
    assert checked.differing == {"model", "optimizer.lr", *of_model}
    alone = check_command(["data=xor", "model=wide,deep", "model.depth=2"], multirun=True)
    assert "model.depth" not in alone.differing, "the command says it for both"
    assert check_command(["data=xor"]).differing == frozenset()


def test_a_range_without_end_is_a_fault() -> None:
    with pytest.raises(ConfigError, match=r"seed = 'range\(2,8,0\)' is no list of values: .*for example 1,2,3"):
        check_overrides(["seed=range(2,8,0)"], multirun=True)
