"""The page of all options agrees with the schema."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mlp_lightning.config import inference, page, schedules, schema

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_schema_and_the_files_say() -> None:
    assert page.page() == PAGE, "docs/configuration.md is stale: python -m mlp_lightning.config.page"


SECTIONS = {
    "": [schema.Config],
    "model.": [schema.ModelConfig, schema.OwnModelConfig],
    "data.": [schema.DataConfig, schema.OwnDataConfig],
    "data.columns.NAME.": [schema.ColumnConfig],
    "data.csv.": [schema.CsvConfig],
    "data.cv.": [schema.CrossValidationConfig],
    "optimizer.": [schema.OptimizerConfig, schema.OwnOptimizerConfig],
    "scheduler.": list(schedules.SCHEDULES.values()),
    "trainer.": [schema.TrainerConfig],
    "callbacks.": [schema.CallbacksConfig],
    "callbacks.extra.N.": [schema.OwnCallbackConfig],
    "callbacks.checkpoint.": [schema.CheckpointConfig],
    "callbacks.early_stopping.": [schema.EarlyStoppingConfig],
    "logger.": [schema.LoggerConfig],
    "ensemble.": [schema.EnsembleConfig],
    "preset.": [schema.PresetConfig],
    "sweep.": [schema.SweepConfig],
}
OPTIONS = [
    (f"{prefix}{field.name}", field)
    for prefix, classes in SECTIONS.items()
    for one in classes
    for field in dataclasses.fields(one)
    if "meaning" in field.metadata and (field.name == "_target_" or not one.__name__.startswith("Own"))
]


@pytest.mark.parametrize(("key", "field"), OPTIONS, ids=[key for key, _ in OPTIONS])
def test_every_option_is_documented(key, field) -> None:
    rows = [line.replace("\\|", "|") for line in PAGE.splitlines() if line.startswith(f"| `{key}` |")]
    rule = field.metadata["rule"]
    assert any(field.metadata["meaning"] in row and (rule is None or f"| {rule.sentence} |" in row) for row in rows), (
        f"docs/configuration.md does not say this of {key}"
    )


COMMANDS = [
    *(inference.EvaluateConfig, inference.ExplainConfig, inference.PredictConfig, inference.ExportConfig),
    inference.ReportConfig,
]


@pytest.mark.parametrize("cls", COMMANDS)
def test_every_option_of_a_command_is_documented(cls) -> None:
    name = cls.__name__.removesuffix("Config").lower()
    part = PAGE[PAGE.index(f"### {name}\n") :].split("\n### ")[0]
    for field in dataclasses.fields(cls):
        if "meaning" in field.metadata:
            assert any(
                line.startswith(f"| `{field.name}` |") and field.metadata["meaning"] in line
                for line in part.splitlines()
            ), field.name
