"""The sizes of runs: data is read once for all runs that share it."""

from __future__ import annotations

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
