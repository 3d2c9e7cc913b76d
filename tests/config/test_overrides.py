"""The check of a command line: it tells every fault at once, and refuses what Hydra would refuse, and no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from support.commands import train, train_forked

from mlp_lightning.config import conf_dir
from mlp_lightning.config.overrides import check_overrides, explicit_keys, with_open_sections
from mlp_lightning.errors import ConfigError, Fault


def faults_of(*overrides: str, multirun: bool = False, config_dir: Path | None = None) -> list[Fault]:
    with pytest.raises(ConfigError) as caught:
        check_overrides(overrides, multirun=multirun, config_dir=config_dir)
    return list(caught.value.faults)


def fault_of(*overrides: str, multirun: bool = False) -> Fault:
    (fault,) = faults_of(*overrides, multirun=multirun)
    return fault


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A user's folder with a model and an optimizer of his own."""
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
    """Else the run folder is made first, and the command fails after it."""
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


def test_a_fault_that_all_runs_share_is_told_once() -> None:
    assert fault_of("trainer.max_steps=0", "model.hidden_units=1,2,3", "model=mlp,wide", multirun=True).key == (
        "trainer.max_steps"
    )


def test_swept_key_replaces_the_suggested_length() -> None:
    trainer = check_overrides(["data=iris", "trainer.max_steps=10,20"], multirun=True).trainer
    assert (trainer.max_steps, trainer.max_epochs) == (10, None)


def test_search_spaces_are_left_to_the_sweeper() -> None:
    space = "optimizer.lr=interval(0.001,0.1)"
    assert check_overrides([space, "hydra/sweeper=basic"], multirun=True) == check_overrides([])
    fault = fault_of(space, multirun=True)
    assert (fault.key, fault.rule) == ("optimizer.lr", "is a search space and not a list of values")


# ---- configuration files of the user's own ---------------------------------------------------------------


def test_own_option(own_folder: Path) -> None:
    config = check_overrides(["model=tower", "optimizer=radam"], config_dir=own_folder)
    assert (config.model.layer_widths, config.model.activation) == ([6, 4], "tanh")
    assert (config.optimizer.name, config.optimizer.options) == ("RAdam", {"betas": [0.8, 0.9]})


def test_shipped_options_remain_beside_own_ones(own_folder: Path) -> None:
    assert check_overrides(["model=wide"], config_dir=own_folder).model.layer_widths == [100]


def test_values_of_own_options_are_checked(own_folder: Path) -> None:
    (fault,) = faults_of("model=broken", config_dir=own_folder)
    assert (fault.key, fault.value) == ("model.hidden_units", 0)


def test_own_options_are_offered(own_folder: Path) -> None:
    (fault,) = faults_of("model=towr", config_dir=own_folder)
    assert "tower" in fault.rule
    assert fault.hint == "did you mean tower?"


def test_own_option_is_unknown_without_its_folder() -> None:
    assert fault_of("model=tower").key == "model"


def test_own_options_may_be_swept_over(own_folder: Path) -> None:
    config = check_overrides(["model=mlp,tower"], multirun=True, config_dir=own_folder)
    assert config.model.layer_widths == [2]
    (fault,) = faults_of("model=mlp,broken", multirun=True, config_dir=own_folder)
    assert (fault.key, fault.value) == ("model.hidden_units", 0)


def test_own_folder_given_to_hydra(own_folder: Path) -> None:
    config = check_overrides([f"hydra.searchpath=[file://{own_folder}]", "model=tower"])
    assert config.model.layer_widths == [6, 4]


def test_own_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        check_overrides([], config_dir=tmp_path / "nowhere")


# ---- sections with names of the user's own ---------------------------------------------------------------

TABLE = ["data=table", "data.path=rows.csv", "data.target=y"]


def kinds_of(*overrides: str, multirun: bool = False) -> dict[str, str]:
    """What the first run is told of the columns of a table."""
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


def test_what_is_said_of_a_column_may_be_swept_over() -> None:
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
        ("data.columns.my col.kind=numeric", "data.columns.my col.kind"),
        ("data.columns.age.kind=[1,", "data.columns.age.kind"),
    ],
)
def test_faults_of_columns_have_the_keys_that_were_given(override: str, key: str) -> None:
    assert fault_of(*TABLE, override).key == key


def test_columns_are_for_tables() -> None:
    fault = fault_of("data=xor", "data.columns.x1.kind=numeric")
    assert (fault.key, fault.hint) == ("data.columns", "choose data=table")


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
    """What a real command told each of its runs of the columns of a table."""
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
