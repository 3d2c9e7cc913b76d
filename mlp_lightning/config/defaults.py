"""The defaults of the schema as Hydra's configuration files begin with them.

``conf/`` holds only what differs from the schema. A file that starts from all options of a section names one of these
nodes in its defaults list, for example ``schema`` in ``conf/train.yaml``.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

from hydra.core.config_store import ConfigStore

from mlp_lightning.config import inference, schedules, schema


@functools.cache
def _nodes() -> dict[str, Any]:
    sections = {
        **schedules.SCHEDULES,
        "model": schema.ModelConfig,
        "early_stopping": schema.EarlyStoppingConfig,
        "evaluate": inference.EvaluateConfig,
        "explain": inference.ExplainConfig,
        "predict": inference.PredictConfig,
        "export": inference.ExportConfig,
        "report": inference.ReportConfig,
    }
    parts = {f"schema_{name}": schema.plain(section()) for name, section in sections.items()}
    run = {**schema.Config().to_dict(), "allow_targets": [], "auto_resume": False}
    del run["data"]["name"]  # the files of conf/data have it, and the rest of them is for that data set
    # A part of the user's own has other keys.
    del run["model"], run["optimizer"]
    own = {name: one for name, one in parts["schema_model"].items() if name not in schema.OF_MLP}
    return {"schema": run, "schema_own_model": own, **parts}


def schema_node(name: str) -> dict[str, Any]:
    """A part of the schema with its defaults: ``schema`` (a run), ``schema_step``, ``schema_predict``, …"""
    return copy.deepcopy(_nodes()[name])


def offer_to_hydra() -> None:
    """Let the files of ``conf/`` name these nodes."""
    for name, node in _nodes().items():
        ConfigStore.instance().store(name=name, node=node, provider="mlp_lightning")
