"""One run of a training: what is asked, its folder and its rows."""

from __future__ import annotations

import dataclasses

from mlp_lightning.config import Config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.runs.own_parts import OwnParts
from mlp_lightning.runs.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a training.

    Attributes:
        config: what to train.
        folder: claimed for it.
        data: its rows.
        own: its parts that are the user's own.
    """

    config: Config
    folder: RunFolder
    data: TabularDataModule
    own: OwnParts = OwnParts()
