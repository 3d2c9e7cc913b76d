"""The page of all options says what the schema says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mlp_lightning.config import schema

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
SECTIONS = {
    "": [schema.Config],
    "model.": [schema.ModelConfig],
    "data.": [schema.DataConfig],
    "optimizer.": [schema.OptimizerConfig],
    "scheduler.": list(schema.SCHEDULES.values()),
    "trainer.": [schema.TrainerConfig],
    "callbacks.": [schema.CallbacksConfig],
    "callbacks.checkpoint.": [schema.CheckpointConfig],
    "callbacks.early_stopping.": [schema.EarlyStoppingConfig],
    "logger.": [schema.LoggerConfig],
}
OPTIONS = [
    (f"{prefix}{field.name}", field)
    for prefix, classes in SECTIONS.items()
    for one in classes
    for field in dataclasses.fields(one)
    if "meaning" in field.metadata
]


@pytest.mark.parametrize(("key", "field"), OPTIONS, ids=[key for key, _ in OPTIONS])
def test_every_option_is_documented(key, field) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{key}` |")]
    rule = field.metadata["rule"]
    assert any(field.metadata["meaning"] in row and (rule is None or f"| {rule.sentence} |" in row) for row in rows), (
        f"docs/configuration.md does not say this of {key}"
    )
