"""Hydra's own command line: its parser on every Python, and what Hydra makes of it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal import utils
from hydra.errors import HydraException

from mlp_lightning.errors import ConfigError, Fault, MLPLightningError
from mlp_lightning.version import version_text

# Of these, a command has one at most.
_COMMANDS = ("run", "multirun", "help", "hydra_help", "cfg", "info", "shell_completion")


def parse_arguments() -> argparse.Namespace:
    """The command line of this process, as Hydra parses it; ends the process if it cannot be used.

    Options may stand before, between and after overrides. ``--version`` prints the version of this package.
    """
    allow_lazy_help()
    parser = utils.get_args_parser()
    for action in parser._actions:
        if isinstance(action, argparse._VersionAction):
            action.version = version_text()
    arguments = parser.parse_intermixed_args()
    if arguments.experimental_rerun is not None:
        parser.error(
            f"--experimental-rerun would unpickle {arguments.experimental_rerun}, which can run any code. Repeat a run"
            " with the overrides in its .hydra/overrides.yaml; continue it with ckpt_path=PATH of a .ckpt file."
        )
    if arguments.config_path is not None:
        parser.error(f"--config-path {arguments.config_path}: give a folder of yours with --config-dir, beside ours.")
    if sum(bool(getattr(arguments, one)) for one in _COMMANDS) > 1:
        parser.error("give one of " + ", ".join(f"--{one.replace('_', '-')}" for one in _COMMANDS))
    if not arguments.cfg and (arguments.resolve or arguments.package is not None):
        parser.error("--resolve and --package say what --cfg prints: give --cfg job, or leave them out")
    return arguments


def is_question(arguments: argparse.Namespace) -> bool:
    """Whether a command only asks for an answer, and nothing is to be trained."""
    return bool(arguments.help or arguments.hydra_help or arguments.cfg or arguments.info or arguments.shell_completion)


def options_given(arguments: argparse.Namespace) -> list[str]:
    """The options of the command line of this process, without its overrides."""
    overrides, options = list(arguments.overrides), []
    for word in sys.argv[1:]:
        if overrides and word == overrides[0]:
            del overrides[0]
        elif word != "--":
            options.append(word)
    return options


def run_hydra(
    task: Callable[[Any], Any], folder: Path, name: str, overrides: Sequence[str], options: Sequence[str]
) -> None:
    """Let Hydra compose the configuration and call ``task`` with it, once or for every run of a sweep.

    Args:
        task: what Hydra runs.
        folder: of the configuration files.
        name: of the primary one.
        overrides: for Hydra.
        options: likewise, for example ``["--multirun"]``.

    Raises:
        ConfigError: Hydra refuses the command. (Left to itself it prints a traceback and ends the process.)
    """
    sys.argv = [sys.argv[0], *overrides, *options]
    report = utils.run_and_report
    utils.run_and_report = lambda run: run()
    try:
        hydra.main(version_base=None, config_path=str(folder), config_name=name)(task)()
    except MLPLightningError:
        raise
    except SystemExit as ending:
        # Where nothing is run, it has said that the configuration has no such --package.
        is_shown = any(one.startswith(("--cfg", "-c")) for one in options)
        raise SystemExit(2 if ending.code == 1 and is_shown else ending.code) from ending
    except Exception as error:
        # Some of Hydra's are an OSError, too.
        of_system = isinstance(error, OSError) and not isinstance(error, HydraException)
        if of_system or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError([Fault("overrides", list(overrides), f"are refused by Hydra: {text}")]) from error
    finally:
        utils.run_and_report = report


def allow_lazy_help() -> None:
    """Let argparse take Hydra's options.

    From Python 3.14 on, argparse refuses an option's help that is not a string. Up to Hydra 1.3.8, one of Hydra's
    becomes a string only when it is shown (facebookresearch/hydra, issue 3121). All other help is checked as before.
    """
    parser: Any = argparse.ArgumentParser
    check = getattr(parser, "_check_help", None)  # not there before Python 3.14
    if check is None or check.__name__ == allow_lazy_help.__name__:
        return

    def check_texts(self: argparse.ArgumentParser, action: argparse.Action) -> None:
        if action.help is None or isinstance(action.help, str):
            check(self, action)

    check_texts.__name__ = allow_lazy_help.__name__  # marks the replacement, so that it is made only once
    parser._check_help = check_texts
