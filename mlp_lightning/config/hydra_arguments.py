"""Hydra's own command-line parser, on every Python."""

from __future__ import annotations

import argparse
from typing import Any

from hydra._internal.utils import get_args_parser

from mlp_lightning.version import version_text


def parse_arguments() -> argparse.Namespace:
    """The command line of this process, as Hydra parses it; ``--version`` prints the version of this package."""
    allow_lazy_help()
    parser = get_args_parser()
    for action in parser._actions:
        if isinstance(action, argparse._VersionAction):
            action.version = version_text()
    return parser.parse_args()


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
