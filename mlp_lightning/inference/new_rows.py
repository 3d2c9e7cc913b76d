"""The files of new rows for a trained model, read as those of its training."""

from __future__ import annotations

from typing import Union

from mlp_lightning.config.inference import CsvAsTrained
from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.tables.idle_csv import refuse_idle_csv
from mlp_lightning.tables.reading.csv import CsvFile
from mlp_lightning.tables.reading.faults import refuse_utf8
from mlp_lightning.tables.reading.sources import FileSource

#: How text files are read: completely, or where it differs from the training.
CsvOptions = Union[CsvConfig, CsvAsTrained]


def new_rows(path: str, csv: CsvOptions | None, trained: CsvConfig) -> FileSource:
    """The table that a path names.

    Args:
        path: a file, a folder of files, or a pattern with ``*``.
        csv: how its text files are written; ``None``: as those of the training.
        trained: how those of the training were written.

    Raises:
        ConfigError: an option has no effect.
        DataError: there is no such table; or nobody says its encoding, and that of the training is not the one of a
            file.
    """
    given = CsvAsTrained() if csv is None else csv
    options = given.over(trained) if isinstance(given, CsvAsTrained) else given
    source = FileSource.open(path, options)
    refuse_idle_csv(given, [source])
    for file in source.files if given.encoding is None else ():
        if isinstance(file, CsvFile):
            refuse_utf8(file.path, file.name, options.encoding)
    return source
