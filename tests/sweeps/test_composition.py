"""Jobs composed together equal those that Hydra composes one by one, in every field and every written file."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from support.composed_sweeps import FIRST, CountingLoader, Sweep, product

from mlp_lightning.config import conf_dir
from mlp_lightning.sweeps import hydra_record
from mlp_lightning.sweeps.composition import write_hydra_folder


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    with initialize_config_dir(version_base=None, config_dir=str(conf_dir()), job_name="train"):
        yield Sweep(CountingLoader(GlobalHydra.instance().config_loader()), tmp_path)


def test_values_share_one_composition(sweep) -> None:
    jobs = product(data=["xor"], seed=["0", "1", "2"], optimizer__lr=["1", "0.1", "1e-3"], model__hidden_units=["2"])
    sweep.check(jobs, compositions=1)


def test_thousand_jobs_are_composed_once(sweep) -> None:
    jobs = product(seed=[str(seed) for seed in range(1000)])
    ours = sweep.composed(jobs)
    assert sweep.loader.count == 1
    assert [job.plain["seed"] for job in ours] == list(range(1000))
    assert [job.number for job in ours] == list(range(FIRST, FIRST + 1000))


def test_groups_have_a_composition_each(sweep) -> None:
    jobs = product(model=["mlp", "wide_deep"], optimizer=["sgd", "adam"], data=["iris"], seed=["1", "2"])
    sweep.check(jobs, compositions=4)


def test_jobs_of_several_shapes_in_one_batch(sweep) -> None:
    sweep.check([["seed=1"], ["seed=2", "name=a"], ["name=b", "seed=3"], ["seed=4"], []], compositions=4)


def test_lists_of_widths(sweep) -> None:
    sweep.check(product(model__hidden_units=["[2,3]", "5", "[7]", "null", "[]", "[1,[2,3.0]]"]), compositions=2)


def test_list_in_the_file(sweep) -> None:
    jobs = product(optimizer=["adam"], optimizer__betas=["[0.8,0.9]", "[0,0.5,1]", "3", "[1,2]"])
    sweep.check(jobs, compositions=2)


# All but a few line breaks that Hydra itself loses in its files, such as U+0085.
VALUES = [
    *("null", "NULL", "true", "False", "yes", "'true'", "1", "-3", "1_000", "007", "1.0", "1e-3", "1e-05", "'1e-3'"),
    *("nan", "inf", "-inf", "plain", "a b", "'with, comma'", '"with = sign"', "'a: b # c'", "'it''s'", '"it\'s"'),
    *("'grüße'", "日本", "'😀 smile'", "'two\\nlines'", "'tab\\there'", "a/b", "/abs/path", "2001-12-14", "12:30:45"),
    *("''", '" "', "'- dash'", "'[x]'", "'{x}'", "'%'", "'@'", "'*star'", "'&and'", "!x", "'null'", "'~'", "~", "0x1F"),
    *("['a, b',c]", "[null,true,'1',1e-3,'x: y']", "'line one\n  line two'", "['a\nb',1]", "a=b", "'${'", "x$y"),
    *("'\ufeffx'", "'\x7f'", "'\\\\'", "'a\\'b'", "'" + "long " * 60 + "'", "'" + "x" * 300 + "'"),
]


def test_every_kind_of_value(sweep) -> None:
    # In the files they are an interpolation, null and a text, the last below a section.
    sweep.check([[f"{key}={value}" for key in ("name", "ckpt_path", "trainer.threads")] for value in VALUES])


def test_key_that_an_interpolation_reads(sweep) -> None:
    sweep.check(product(data__name=["a", "b"], seed=["1", "2"]), compositions=1)  # name: ${data.name}
    sweep.check(product(optimizer=["sgd"], data__suggested_lr__sgd=["1", "0.5", "null"]), compositions=1)
    added = [["optimizer=adam", f"+data.suggested_lr.adam={lr}"] for lr in ("0.1", "0.2")]
    sweep.check(added, compositions=2)
    forced = [["optimizer=adam", f"++data.suggested_lr.adam={lr}"] for lr in ("0.1", "0.2")]
    sweep.check(forced, compositions=1)


INTERPOLATIONS = [
    *("${data.name}_${seed}", "x_${.seed}", "${oc.select:seed,1}", "${hydra:job.num}_${seed}", "${oc.decode:'3'}"),
    *("${hydra:runtime.output_dir}", "${hydra:job.config_name}", "${oc.env:HOME}", "${oc.select:nothing,x}"),
    *("${oc.dict.keys:trainer}", "${oc.dict.values:model}", "${model}", "${trainer[max_steps]}", "${ seed }"),
    *("${hydra:overrides.task}", "${oc.select:'seed'}", "${data.${report_weights}}", "\\${seed}", "${oc.create:[1]}"),
    *("${hydra:nothing}", "${nothing}", "${hydra.job.num}", "${ckpt_path}", "${model.hidden_units}"),
]


@pytest.mark.slow
def test_interpolation_among_the_overrides(sweep) -> None:
    values = [["seed=1", "model.hidden_units=[1,2]"], ["seed=2", "model.hidden_units=[3]"]]
    jobs = [[*job, f'name="{name}"'] for job in values for name in INTERPOLATIONS]
    sweep.check(jobs, compositions=len(INTERPOLATIONS))


def test_interpolation_that_leads_to_another_section(sweep) -> None:
    # callbacks.early_stopping.patience=3 then sets model.patience, or fails.
    jobs = [["callbacks.early_stopping=${model}", f"callbacks.early_stopping.depth={depth}"] for depth in "123"]
    sweep.check(jobs)
    sweep.check([["++alias=${model}", f"alias.depth={depth}", "seed=1"] for depth in "123"])
    sweep.check([["++alias=${model}", f"model.depth={depth}", "seed=1"] for depth in "123"], compositions=1)


SUBDIRS = [
    *("${hydra.job.override_dirname}", "job_${hydra.job.num}", "${hydra.job.id}", "${seed}_${model.hidden_units}"),
    *("${hydra:job.num}", "${oc.select:seed}/x", "${hydra.overrides.task[0]}", "${name}", "fixed", "${nothing}"),
    *(
        "${hydra:runtime.output_dir}",
        "../${seed}",
        "${hydra.runtime.choices.model}",
        "${hydra.job.config_name}_${hydra.job.name}",
        "???",
    ),
]


@pytest.mark.parametrize("subdir", SUBDIRS)
def test_folder_of_a_job(sweep, subdir) -> None:
    jobs = [[f"seed={seed}", "model.hidden_units=[4,5]", f"name='b, {seed}'"] for seed in "12"]
    sweep.check(jobs, f"hydra.sweep.subdir={subdir}", compositions=1)


def test_names_of_override_dirname(sweep) -> None:
    jobs = product(seed=["1", "2"], optimizer__lr=["0.1", "1"], model=["mlp"])
    naming = "hydra.job.config.override_dirname"
    subdir = "hydra.sweep.subdir=${hydra.job.override_dirname}"
    sweep.check(jobs, subdir, f"{naming}.kv_sep=-", f"{naming}.item_sep=_", f"{naming}.exclude_keys=[optimizer.lr]")
    assert sweep.composed(jobs, subdir)[0].output_dir.name == "model=mlp,optimizer.lr=0.1,seed=1"
    # A separator that comes from a swept key is decided while Hydra composes.
    sweep.check(jobs, subdir, f"{naming}.item_sep='_${{seed}}_'", compositions=4)


@pytest.mark.parametrize("subdir", ["null", "record", "deep/${hydra.job.num}", "x${seed}"])
def test_hydras_folder(sweep, subdir) -> None:
    sweep.check(product(seed=["1", "2"]), f"hydra.output_subdir={subdir}", compositions=1)


def test_other_output_dir(sweep, tmp_path) -> None:
    (job,) = sweep.composed([["seed=1"]])
    write_hydra_folder(job, tmp_path / "elsewhere")
    written = yaml.safe_load((tmp_path / "elsewhere" / ".hydra" / "hydra.yaml").read_text(encoding="utf-8"))
    assert written["hydra"]["runtime"]["output_dir"] == str(tmp_path / "elsewhere")


def test_logging_that_reads_the_folder(sweep) -> None:
    sweep.check(product(seed=["1", "2"]), "hydra/job_logging=default", "hydra/hydra_logging=default", compositions=1)


@pytest.mark.parametrize(
    "extra",
    [
        *("+trainer.new=1", "~callbacks.lr_monitor", "~logger", "~seed=1", "callbacks.checkpoint=null", "+seed=3"),
        *("+new={a: {b: 1}}", "++new.deep.key=1", "++seed.x=1", "callbacks.early_stopping={a: 1}", "~experiment"),
        *("model={depth: 3}", "trainer={max_steps: 5, threads: 2}", "optimizer.betas.0=0.5", "hydra.job.name=other"),
        *("hydra.sweep.subdir=x${seed}", "hydra/job_logging=default", "experiment=lab8_2_mlp", "scheduler=step"),
        *("trainer.max_steps=${seed}", "seed=5", "model=null", "name=[${seed},{a: 1}]", "name=???"),
        *("model@trainer=mlp", "+model@second=wide"),
    ],
)
def test_override_beside_swept_values(sweep, extra) -> None:
    after = [["optimizer=adam", f"seed={seed}", extra] for seed in "12"]
    sweep.check([*after, ["seed=4"], *[[extra, f"seed={seed}"] for seed in "34"]])


def test_mapping_and_value_at_one_key(sweep) -> None:
    sweep.check([["callbacks.checkpoint=null"], ["callbacks.checkpoint=3"], ["callbacks.checkpoint={monitor: x}"]])
    sweep.check([["callbacks.checkpoint=3"], ["callbacks.checkpoint=null"], ["callbacks.checkpoint=[1]"]])


def test_key_twice_and_key_below_another(sweep) -> None:
    sweep.check([["seed=1", "seed=2"], ["seed=3", "seed=4"]])
    sweep.check([["++a=1", "++a.b=2"], ["++a=2", "++a.b=3"], ["++a.b=2", "++a=1"]])
    sweep.check([["++a_b=1", "++a.b=2"], ["++a_b=2", "++a.b=3"]], compositions=1)


def test_same_job_twice(sweep) -> None:
    sweep.check([["seed=1"], ["seed=1"], ["seed=1", "model=wide"], ["seed=1", "model=wide"]], compositions=2)
    one, other = sweep.composed([["seed=1", "model.hidden_units=[1,2]"]] * 2)
    one.plain["model"]["hidden_units"].append(3)
    assert other.plain["model"]["hidden_units"] == [1, 2]


def test_error_of_one_job(sweep) -> None:
    jobs = [
        *(["model=mlp", "seed=1"], ["model=nothing", "seed=1"], ["model=wide", "seed=1"], ["model=mlp", "seed=2"]),
        *(["sed=1"], ["sed=2"], ["seed=[1"], ["seed=1,2"], ["seed=range(3)"], ["nothing=x"], ["seed.x=1"], ["=1"]),
        *(["hydra.nothing=1"], ["name=${nothing}"], ["name=${data.name"], ["model.hidden_units.x=1"], ["seed=3"]),
    ]
    sweep.check(jobs)
    ours = sweep.composed(jobs)
    assert [job.error is None for job in ours] == [True, False, True, True, *12 * [False], True]
    assert "nothing" in str(ours[1].error)


def test_value_that_breaks_an_interpolation(sweep) -> None:
    # The folder is known and its .hydra is written before the configuration is resolved.
    sweep.check([[f"data.name={value}", "name=${oc.env:${data.name}}"] for value in ("HOME", "NOT_THERE_X", "HOME")])
    sweep.check([["data={name: x}", "name=${data.val_fraction}"], ["~data"], ["seed=1"]])


@dataclasses.dataclass
class TypedModel:
    depth: int = 1
    title: str = "a"
    widths: list[int] = dataclasses.field(default_factory=lambda: [1])
    mode: RunMode = RunMode.RUN


def test_types_of_keys(sweep, monkeypatch) -> None:
    store = ConfigStore.instance()
    monkeypatch.setattr(store, "repo", copy.deepcopy(store.repo))
    store.store(group="model", name="typed", node=TypedModel)
    # A value is converted or refused; a refusal is an error of one job, with Hydra's message.
    sweep.check(product(model=["typed"], model__depth=["1", "'2'", "x", "3"], model__title=["b", "1", "1e-3"]))
    sweep.check(product(model=["typed"], model__widths=["[1]", "[2,x]", "['3',4]", "5", "null"]))
    sweep.check(product(model=["typed"], model__mode=["RUN", "MULTIRUN", "nothing", "RUN"]))


def test_time_of_day(sweep, monkeypatch) -> None:
    now = "${now:%H-%M-%S-%f}"
    ours = sweep.composed(product(seed=["1", "2"]), f"hydra.sweep.dir={sweep.folder}/{now}")
    assert ours[0].output_dir.parent == ours[1].output_dir.parent  # one sweep, one folder
    ours = sweep.composed([["seed=1", f"name={now}"], ["seed=2", f"name={now}"]])
    assert sweep.loader.count == 1
    assert ours[0].plain["name"] != ours[1].plain["name"]  # resolved for each job


def test_hydras_state_is_left_alone(sweep) -> None:
    before = HydraConfig.instance().cfg
    sweep.composed([["seed=1", "name=${hydra:job.num}"], ["name=${hydra:nothing}"]])
    assert HydraConfig.instance().cfg is before


RANDOM_VALUES = {
    "seed": ["0", "1", "'2'", "null", "${oc.select:trainer.max_steps}"],
    "name": ["a", "'b, c'", "${seed}", "${hydra:job.num}", "'x${data.name}'", "[1,b]"],
    "model": ["mlp", "wide_deep", "nothing", "{depth: 2}", "{hidden_units: 7}"],
    "model.hidden_units": ["1", "[2,3]", "null", "${seed}", "{a: 1}"],
    "model.depth": ["1", "2"],
    "optimizer": ["sgd", "adam"],
    "optimizer.lr": ["0.1", "1e-3", "1", "${data.suggested_lr.sgd}"],
    "optimizer.momentum": ["0.9", "0"],
    "data": ["xor", "iris"],
    "data.suggested_lr.sgd": ["1", "0.25"],
    "data.name": ["q", "${name}"],
    "trainer": ["cpu", "debug"],
    "trainer.max_steps": ["10", "null"],
    "callbacks.early_stopping": ["null", "3", "{patience: 1}"],
    "extra.key": ["1", "[1]", "${seed}"],
}
RANDOM_HYDRA = [
    [],
    ["hydra.sweep.subdir=${hydra.job.override_dirname}"],
    ["hydra.sweep.subdir=${seed}_${hydra.job.num}", "hydra/job_logging=default"],
    ["hydra.output_subdir=x_${name}"],
]


@pytest.mark.parametrize("seed", range(10))
def test_random_sweeps(sweep, seed) -> None:
    draw = random.Random(seed)
    keys = draw.sample(sorted(RANDOM_VALUES), draw.randint(1, 4))
    signs = {key: draw.choice(["", "", "", "+", "++", "~"]) if draw.random() < 0.3 else "" for key in keys}
    jobs = []
    for _ in range(6):
        order = draw.sample(keys, len(keys)) if draw.random() < 0.2 else keys
        jobs.append([f"{signs[key]}{key}={draw.choice(RANDOM_VALUES[key])}" for key in order])
    sweep.check(jobs, *draw.choice(RANDOM_HYDRA))


TEXTS_OF_YAML = [
    *(0, 5, -3, 10**20, 0.25, 1e-5, 1e17, 2.0, float("nan"), True, None, [], [1], "5", "007"),
    *("model.hidden_units=4,6", "++x=1", "+x=1", "/tmp/a-b/5", "/", "a=", "a=-", "x=1e-3", "a=b#c", "a= b", "~", "x=:"),
    *("1_0", "seed=5", "=", "a", "/a b", "٣", "a=no", "a=.", "seed=5\n", "/a\n", "_=_", "x=,"),
    *(f"{'x' * 200}=1", f"/{'y' * 300}", f"/{'y z' * 100}"),
]


@pytest.mark.parametrize("value", TEXTS_OF_YAML, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("key", ["seed", "hidden_units", "lr", "no", "1", "a b"])
def test_text_of_a_value_is_that_of_the_yaml_library(key, value) -> None:
    assert hydra_record._piece((key,), value) == hydra_record._yaml({key: value})
    assert hydra_record._list([value, "seed=1"]) == hydra_record._yaml([value, "seed=1"])


def test_equal_sections_are_shared(sweep) -> None:
    jobs = product(data=["xor"], seed=["0", "1"], optimizer__lr=["0.5", "1"], model__hidden_units=["4", "[2,3]"])
    ours = sweep.composed(jobs)
    lists = [job for job in ours if isinstance(job.sections["model"]["hidden_units"], list)]
    assert len(lists) == 4
    for alike in (lists, [job for job in ours if job not in lists]):
        assert len({id(job.sections["model"]) for job in alike[1:]}) == 1, "all but the first, which Hydra composed"
        assert len({id(job.sections["trainer"]) for job in alike}) == 1
        assert len({id(job.sections["optimizer"]) for job in alike[1:]}) == 2


@pytest.mark.parametrize("swept", ["data.suggested_lr.sgd", "data.name"])
def test_a_key_that_is_read_through_a_default_is_resolved_for_every_job(sweep, swept) -> None:
    sweep.check([["optimizer=sgd", f"{swept}={value}"] for value in ("0.25", "3", "0.5")], compositions=1)
