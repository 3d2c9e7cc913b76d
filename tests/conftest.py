"""Fixtures for all tests."""

from __future__ import annotations

import signal
import sys

import pytest
from support.configurations import ComposeConfig, plain_config

from mlp_lightning.config import Config, parse_config
from mlp_lightning.config.overrides import explicit_keys

# A shell starts what runs in its background with Ctrl-C ignored, and every process hands that on to its children. The
# commands that the tests interrupt are such children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Tests are spread over the processors; those of files that are named start sooner in one process."""
    return 0 if all(".py" in one for one in config.args) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if sys.platform == "win32":
        skip = pytest.mark.skip(reason="Windows has no such signals and permissions")
        for item in items:
            if item.get_closest_marker("posix"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def compose_config() -> ComposeConfig:
    """The configuration of a list of command-line overrides, quiet."""

    def composed(*overrides: str) -> Config:
        return parse_config(plain_config(["verbosity=0", *overrides]), explicit_keys(overrides))

    return composed
