"""Fixtures for all tests."""

from __future__ import annotations

import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import lightning.pytorch as pl
import pytest
from support.configurations import ComposeConfig, plain_config

from mlp_lightning.config import Config, parse_complete
from mlp_lightning.config.overrides import explicit_keys
from mlp_lightning.engines.sizing import cpu_threads

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

# A shell starts what runs in its background with Ctrl-C ignored, and every process hands that on to its children. The
# commands that the tests interrupt are such children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cases", type=int, metavar="N", help="at most N cases of every test function, spread over all")
    parser.addoption("--torture", type=int, default=1, metavar="N", help="N times as many trials in tests/torture")


@pytest.fixture(scope="session")
def torture(pytestconfig: pytest.Config) -> int:
    """How many times the trials of the bounded run a test in tests/torture makes."""
    return pytestconfig.getoption("--torture")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Tests are spread over the processors; those of files that are named start sooner in one process."""
    return 0 if all(".py" in one for one in config.args) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    most = config.getoption("--cases")
    if most is not None:
        chosen = _some_of_each(items, most)
        config.hook.pytest_deselected(items=list({*items} - {*chosen}))
        items[:] = chosen
    if sys.platform == "win32":
        skip = pytest.mark.skip(reason="Windows has no such signals and permissions")
        for item in items:
            if item.get_closest_marker("posix"):
                item.add_marker(skip)


def _some_of_each(items: list[pytest.Item], most: int) -> list[pytest.Item]:
    """At most so many cases of every test function, evenly spread: all code runs, not every value."""
    numbers = Counter[str]()
    counts = Counter(one.nodeid.partition("[")[0] for one in items)
    chosen = []
    for one in items:
        name = one.nodeid.partition("[")[0]
        number, count = numbers[name], counts[name]
        numbers[name] += 1
        if count <= most or number * most // count != (number - 1) * most // count:
            chosen.append(one)
    return chosen


@pytest.fixture(scope="session")
def compose_config() -> ComposeConfig:
    """The configuration of a list of command-line overrides, quiet."""

    def composed(*overrides: str) -> Config:
        return parse_complete(plain_config(["verbosity=0", *overrides]), explicit_keys(overrides))

    return composed


class NoEndInSight(pl.Callback):
    """Fails a run that misses its end, which would continue forever."""

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        batches = trainer.fit_loop.epoch_loop.batch_progress.total.completed
        assert batches < 2000, f"{batches} batches, step {trainer.global_step}, epoch {trainer.current_epoch}"


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Matrices as small as those here only lose by a second thread."""
    with cpu_threads(1):
        yield


@pytest.fixture(scope="session")
def make_trainer() -> Callable[..., pl.Trainer]:
    """A quiet Trainer on the CPU; keyword arguments are those of ``pl.Trainer``."""

    def made(**settings: Any) -> pl.Trainer:
        quiet = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        callbacks = [*settings.pop("callbacks", []), NoEndInSight()]
        with warnings.catch_warnings():
            # On a machine with a GPU, Lightning recommends it.
            warnings.filterwarnings("ignore", message="GPU available but not used")
            return pl.Trainer(accelerator="cpu", devices=1, **{**quiet, **settings}, callbacks=callbacks)

    return made
