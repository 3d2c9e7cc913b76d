from __future__ import annotations

import pytest

from mlp_lightning.config.names import TABLES, TASKS, data_sets
from mlp_lightning.data import TabularDataModule, data_module_class
from mlp_lightning.data.iris import IrisDataModule
from mlp_lightning.data.table import TableDataModule
from mlp_lightning.data.xor import XORDataModule


def test_a_data_set_is_found_by_its_name() -> None:
    assert data_module_class("xor") is XORDataModule
    assert data_module_class("iris") is IrisDataModule


@pytest.mark.parametrize("name", data_sets())
def test_every_data_set_that_a_configuration_may_name_is_there(name: str) -> None:
    found = data_module_class(name)
    assert issubclass(found, TabularDataModule)
    if name in TABLES:  # which say themselves what their target asks for
        assert found is TableDataModule
    else:
        assert found.task in TASKS


def test_an_unknown_data_set_is_an_import_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_data"):
        data_module_class("no_such_data")
