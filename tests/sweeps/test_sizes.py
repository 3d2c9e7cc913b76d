"""The sizes of runs: data is read once for all runs that share it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlp_lightning.errors import ConfigError
from mlp_lightning.runs import build
from mlp_lightning.sweeps.sizes import SizesOf


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the data sets, in the order in which they are built."""
    names = []
    original = build.build_data

    def build_data(config, given):
        names.append(config.data.name)
        return original(config, given)

    monkeypatch.setattr(build, "build_data", build_data)
    return names


def test_sizes_of_a_table(compose_config) -> None:
    sizes = SizesOf()(compose_config("data=moons", "data.samples=200", "trainer.max_epochs=3"))
    # 200 rows, of which 15 % are validation and 15 % test rows; 140 in batches of 32.
    assert (sizes.in_features, sizes.out_features, sizes.rows_per_step, sizes.rows) == (2, 1, 32, 200)
    assert (sizes.steps, sizes.embedded) == (15, (2, 0))


def test_data_that_runs_share_is_read_once(compose_config, built) -> None:
    sizes_of = SizesOf()
    for given in (["seed=1"], ["seed=1", "optimizer.lr=0.1"], ["seed=2"]):
        sizes_of(compose_config("data=xor", *given))
    assert built == ["xor"]
    # The features depend on the training rows, and these on the seed where rows are split off.
    for given in (["seed=1"], ["seed=2"], ["seed=1", "optimizer.lr=0.1"]):
        sizes_of(compose_config("data=moons", *given))
    assert built == ["xor", "moons", "moons"]


@pytest.mark.parametrize("order", [(0.0, 0.1), (0.1, 0.0)])
def test_a_run_that_is_refused_does_not_affect_others(order, compose_config) -> None:
    """A regression has no labels to smooth."""
    sizes_of = SizesOf()
    for smoothing in order:
        config = compose_config("data=friedman", f"trainer.label_smoothing={smoothing}")
        if smoothing:
            assert sizes_of.steps(config) == 0
            with pytest.raises(ConfigError, match="label_smoothing"):
                sizes_of(config)
        else:
            assert sizes_of(config).out_features == 1


def write_shells(path: Path, families: str) -> str:
    """One family in one tank each; sizes have thousands separators."""
    rows = [f'"{1_000 + 37 * row:,}",tank {row % len(families)},{families[row % len(families)]}' for row in range(60)]
    path.write_text("\n".join(["mass,tank,family", *rows]) + "\n", encoding="utf-8")
    return str(path)


def test_a_table_is_described_once_and_of_other_splits_what_is_noted_there(compose_config, tmp_path: Path) -> None:
    path = write_shells(tmp_path / "shells.csv", "uvwxyz")
    table = ["data=table", f"data.path={path}", "data.target=family", "data.group_column=tank"]
    table += ["data.val_fraction=0.3", "data.test_fraction=0", "trainer.max_epochs=1"]
    runs = [(f"Run {seed}", compose_config(*table, f"seed={seed}")) for seed in range(6)]
    sizes_of = SizesOf()
    for _, config in runs:
        sizes_of(config)
    described = [build.build_data(config).describe() for _, config in runs]
    lines = sizes_of.new_lines(runs[:2])
    assert lines[: len(described[0])] == described[0]
    assert "mass: numbers are written as '1,000', which is read as 1000" in lines
    lost = {
        (name, one)
        for (name, _), of_run in zip(runs, described, strict=True)
        for one in of_run
        if one.startswith("no training row has the class")
    }
    lines += sizes_of.new_lines(runs)
    assert len(lines) == len(described[0]) + len({one for _, one in lost} - {*described[0]})
    assert {tuple(one.split(": ", 1)) for one in lines[len(described[0]) :]} <= lost
    assert sizes_of.new_lines(runs) == []


def test_lines_of_several_tables_are_named_and_few(compose_config, tmp_path: Path) -> None:
    paths = [write_shells(tmp_path / f"{name}.csv", "uv") for name in "abcd"]
    common = ["data=table", "data.target=family", "trainer.max_epochs=1"]
    runs = [(name, compose_config(*common, f"data.path={path}")) for name, path in zip("abcd", paths, strict=True)]
    sizes_of = SizesOf()
    for _, config in runs:
        sizes_of(config)
    lines = sizes_of.new_lines(runs)
    assert [one for one in lines if "predicts" in one] == [
        f"{path}: 60 rows; predicts family (binary: u 30, v 30)" for path in paths[:3]
    ]
