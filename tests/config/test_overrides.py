"""The check of a single run's overrides: it reports every fault, and refuses exactly what Hydra would refuse."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.errors import MissingConfigException
from support.override_faults import fault_of, faults_of

from mlp_lightning.config import conf_dir
from mlp_lightning.config import overrides as overrides_module
from mlp_lightning.config.overrides import check_overrides, explicit_keys
from mlp_lightning.errors import ConfigError, Fault

# ---- what is accepted ------------------------------------------------------------------------------------


def test_no_overrides() -> None:
    config = check_overrides([])
    assert (config.name, config.data.name, config.seed) == ("xor", "xor", 777)


def test_overrides_are_applied() -> None:
    config = check_overrides(["model=wide_deep", "data=iris", "seed=0", "optimizer.lr=0.5", "name=mine"])
    assert (config.model.depth, config.data.name, config.seed) == (3, "iris", 0)
    assert (config.optimizer.lr, config.name) == (0.5, "mine")


def test_the_last_of_repeated_overrides_wins() -> None:
    config = check_overrides(["model=wide", "model=mlp", "model.dropout=0.1", "model.dropout=0.2"])
    assert (config.model.hidden_units, config.model.dropout) == (2, 0.2)


def test_values_keep_their_types() -> None:
    config = check_overrides(["model.hidden_units=[3,4]", "model.bias=false", "trainer.precision=64", "name='a b'"])
    assert config.model.hidden_units == [3, 4]
    assert config.model.bias is False
    assert config.trainer.precision == "64"
    assert config.name == "a b"


@pytest.mark.parametrize(
    "override", ["hydra.job.name=mine", "hydra.verbose=true", "hydra/job_logging=none", "hydra.run.dir=/somewhere"]
)
def test_options_of_hydra_pass_through(override: str) -> None:
    assert check_overrides([override]) == check_overrides([])


def test_options_of_hydra_may_be_swept_over() -> None:
    assert check_overrides(["hydra.job.name=a,b"], multirun=True) == check_overrides([])


def test_deletion_falls_back_to_the_default_of_the_schema() -> None:
    assert check_overrides(["~model.activation"]).model.activation == "relu"
    assert check_overrides(["~scheduler"]).scheduler.name == "none"
    assert check_overrides(["experiment=lab8_2_mlp", "~logger.csv"]).logger.csv is True


def test_interpolation_of_a_key_that_is_there() -> None:
    assert check_overrides(["name=${data.name}_${seed}"]).name == "xor_777"


def test_adding_to_a_mapping() -> None:
    assert check_overrides(["+data.suggested_lr.adam=0.05", "optimizer=adam"]).optimizer.lr == 0.05


# ---- faults of single overrides --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("model=wid", "did you mean wide?"),
        ("model=xyz", ""),
        ("data=irs", "did you mean iris?"),
        ("optimizer=Adam", "did you mean adam?"),
        ("scheduler=cosin", "did you mean cosine?"),
        ("trainer=5", ""),
        ("experiment=lab8_2", "did you mean lab8_2_mlp?"),
    ],
)
def test_unknown_option_of_a_group(override: str, hint: str) -> None:
    group, option = override.split("=")
    options = ", ".join(sorted(file.stem for file in (conf_dir() / group).glob("*.yaml")))
    assert fault_of(override) == Fault(group, option, f"must be one of {options}", hint)


@pytest.mark.parametrize("override", ["modle=wide", "+modle=wide", "++modle=wide"])
def test_unknown_group(override: str) -> None:
    fault = fault_of(override)
    assert (fault.key, fault.value, fault.hint) == ("modle", "wide", "did you mean model?")
    assert fault.rule.startswith("is not a key of the configuration (name, seed, task, model, ")


@pytest.mark.parametrize("override", ["model.hiden_units=3", "+model.hiden_units=3", "++model.hiden_units=3"])
def test_unknown_key(override: str) -> None:
    fault = fault_of(override)
    assert (fault.key, fault.value) == ("model.hiden_units", 3)
    assert fault.hint == "did you mean model.hidden_units?"


@pytest.mark.parametrize("override", ["model.depth=[1,", "name=${x", "lonely", "model.depth 3"])
def test_syntax_error(override: str) -> None:
    fault = fault_of(override)
    assert fault.key == override.split("=")[0]
    assert fault.rule.startswith("cannot be read as KEY=VALUE: ")
    assert "\n" not in fault.rule
    assert fault.hint == "quote a value with special characters: 'key=\"value\"'"


@pytest.mark.parametrize(
    ("override", "reference"),
    [("name=${foo}", "foo"), ("optimizer.lr=${data.suggested_lr.sgdd}", "data.suggested_lr.sgdd")],
)
def test_interpolation_of_a_missing_key(override: str, reference: str) -> None:
    fault = fault_of(override)
    assert f"{fault.key}={fault.value}" == override
    assert fault.rule.startswith(f"cannot be composed: Interpolation key '{reference}' not found")
    assert "\n" not in fault.rule


@pytest.mark.parametrize(("override", "hint"), [("~modle", "model"), ("~model.dropot", "model.dropout")])
def test_deletion_of_what_is_not_there(override: str, hint: str) -> None:
    fault = fault_of(override)
    assert fault.key == override.lstrip("~")
    assert "does not exist" in fault.rule
    assert fault.hint == f"did you mean {hint}?"


def test_deletion_of_another_value_than_the_one_there() -> None:
    fault = fault_of("~model.dropout=0.5")
    assert (fault.key, fault.value) == ("model.dropout", "0.5")


def test_a_run_needs_data() -> None:
    """The name of the run comes from the data set."""
    fault = fault_of("~data")
    assert (fault.key, fault.hint) == ("data", "")


def test_unknown_option_of_hydra() -> None:
    fault = fault_of("hydra.foo=1")
    assert (fault.key, fault.value) == ("hydra.foo", "1")


@pytest.mark.parametrize("group", ["model", "scheduler", "experiment"])
@pytest.mark.parametrize("nothing", ["null", "None", ""])
def test_group_without_an_option(group: str, nothing: str) -> None:
    """Hydra takes a group out with ``~group``, and cannot compose ``group=null``."""
    assert fault_of(f"{group}={nothing}").key == group


def test_override_without_a_key() -> None:
    assert "KEY=VALUE" in fault_of("=3").rule


def test_unknown_primary_configuration() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        check_overrides([], config_name="nowhere")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["+model.hidden_units=3"], "model.hidden_units"),
        (["data.suggested_lr.adam=0.1"], "data.suggested_lr.adam"),
        (["data=iris", "callbacks.early_stopping.patience=3"], "callbacks.early_stopping.patience"),
        (["callbacks=none", "callbacks.checkpoint.every_n_steps=3"], "callbacks.checkpoint.every_n_steps"),
        (["+model=wide"], "model"),
        (["++model=wide"], "model"),
        (["model@data=wide"], "model@data"),
    ],
)
def test_what_hydra_refuses_is_found_before_hydra_runs(overrides: list[str], key: str) -> None:
    """Otherwise the run folder is created first, and the command fails after it."""
    assert fault_of(*overrides).key == key


# ---- all at once -----------------------------------------------------------------------------------------


def test_all_faults_of_a_command_at_once() -> None:
    faults = faults_of(
        "model=wid", "data=irs", "modle.x=1", "seed=[1,", "optimizer.lr=-1", "trainer.max_step=5", "report_weights=bst"
    )
    assert {fault.key: fault.value for fault in faults} == {
        "model": "wid",
        "data": "irs",
        "modle": {"x": 1},
        "seed": "[1,",
        "optimizer.lr": -1,
        "trainer.max_step": 5,
        "report_weights": "bst",
    }


@pytest.mark.parametrize("uncomposable", ["hydra.foo=1", "~model.dropot", "name=${foo}", "+model.norm=batch"])
def test_what_cannot_be_composed_hides_no_other_fault(uncomposable: str) -> None:
    keys = {fault.key for fault in faults_of(uncomposable, "trainer.max_steps=0")}
    assert len(keys) == 2
    assert "trainer.max_steps" in keys


def test_contradiction_of_what_is_composed() -> None:
    fault = fault_of("callbacks=early_stopping")
    assert (fault.key, fault.rule) == (
        "callbacks.early_stopping.monitor",
        "needs validation rows and there are none",
    )


def test_only_a_depth_that_the_user_gave_contradicts_a_list() -> None:
    assert check_overrides(["model=wide_deep", "model.hidden_units=[3,4]"]).model.depth == 2
    assert fault_of("model=wide_deep", "model.hidden_units=[3,4]", "model.depth=3").key == "model.depth"


# ---- explicit keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("seed=1", "seed"),
        ("trainer.max_steps=5", "trainer.max_steps"),
        ("+model.extra=1", "model.extra"),
        ("++model.depth=2", "model.depth"),
        ("~model.depth", "model.depth"),
        ("~model.depth=2", "model.depth"),
        ("name='a=b'", "name"),
        ("model=wide", "model"),
    ],
)
def test_explicit_keys(override: str, key: str) -> None:
    assert explicit_keys([override]) == {key}


def test_explicit_keys_of_several_overrides() -> None:
    assert explicit_keys([]) == frozenset()
    assert explicit_keys(iter(["a=1", "b.c=2", "a=3"])) == {"a", "b.c"}


def test_a_plugin_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint is what can be typed."""
    override, extra, plugin = "hydra/launcher=joblib", "joblib", "hydra/launcher/joblib"
    compose = overrides_module.compose

    def composed(name: str, overrides: list[str], **options: Any) -> Any:
        if override in overrides:  # what Hydra says where the plugin is missing
            raise MissingConfigException(f"In 'hydra/config': Could not find '{plugin}'\n\nAvailable options", plugin)
        return compose(name, overrides, **options)

    monkeypatch.setattr(overrides_module, "compose", composed)
    with pytest.raises(ConfigError) as caught:
        check_overrides([override, "data=iris"], multirun=True)
    assert f"which is not installed; pip install 'mlp-lightning[{extra}]'" in str(caught.value)
