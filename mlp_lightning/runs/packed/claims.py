"""What the runs of a packed sweep are, written before the first of them is trained."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlp_lightning.config.shared import Remembered
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.packed.parts import FORMAT, parquet_writer

#: Columns with these names and the name of a key of the configuration hold its value as JSON.
CONFIG_COLUMN = "config."
#: The files of Hydra's folder, each in a column.
HYDRA_FILES = ("config.yaml", "hydra.yaml", "overrides.yaml")
_ROWS_TOGETHER = 1024


@dataclasses.dataclass(frozen=True)
class Claim:
    """One run.

    Attributes:
        run: the name of its folder in that of the sweep.
        sections: its configuration; equal ones are the same objects.
        overrides: of its job.
        hydra_folder: the name of Hydra's folder in that of the run; empty without one.
        hydra: what that folder holds, by file.
    """

    run: str
    sections: Mapping[str, Any]
    overrides: Sequence[str]
    hydra_folder: str = ""
    hydra: Mapping[str, str] = dataclasses.field(default_factory=dict)


def write_claims(folder: Path, claims: Sequence[Claim]) -> None:
    """Add the claims of a batch of runs to the folder ``packed`` of a sweep."""
    number = max((int(one.stem.partition("-")[2]) for one in folder.glob("claims-*.parquet")), default=-1) + 1
    as_json = Remembered(json.dumps)
    with atomic_write(folder / f"claims-{number:06d}.parquet") as file:
        writer = None
        for start in range(0, len(claims), _ROWS_TOGETHER):
            part = claims[start : start + _ROWS_TOGETHER]
            columns: dict[str, list[Any]] = {
                "run": [one.run for one in part],
                "overrides": [list(one.overrides) for one in part],
                "hydra_folder": [one.hydra_folder for one in part],
                **{name: [one.hydra.get(name, "") for one in part] for name in HYDRA_FILES},
            }
            for name, value in part[0].sections.items():
                dumps = as_json if isinstance(value, dict) else json.dumps
                columns[f"{CONFIG_COLUMN}{name}"] = [dumps(one.sections[name]) for one in part]
            table = pa.table(columns)
            if writer is None:
                schema = table.schema.with_metadata({"format": FORMAT})
                repeated = [one for one in schema.names if one.startswith(CONFIG_COLUMN) or one == "hydra_folder"]
                writer = parquet_writer(file, schema, repeated)
            writer.write_table(table)
        assert writer is not None
        writer.close()
