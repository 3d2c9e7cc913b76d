from __future__ import annotations

import pytest
import torch
from support.tolerances import assert_same_bits

from mlp_lightning.engines.rows import EvaluationBatches, Rows


def some_rows(count: int = 5) -> Rows:
    features_BF = torch.arange(2 * count, dtype=torch.float32).reshape(count, 2)
    return Rows(features_BF, torch.arange(count))


def test_length_is_the_number_of_rows() -> None:
    assert len(some_rows(5)) == 5
    assert len(Rows(torch.zeros(0, 3), torch.zeros(0, 1))) == 0


@pytest.mark.parametrize("index", [torch.tensor([3, 0, 3]), slice(1, 4), slice(4, 9)])
def test_an_index_takes_features_and_targets_together(index: torch.Tensor | slice) -> None:
    rows = some_rows(5)
    part = rows[index]
    assert_same_bits(part.targets, torch.arange(5)[index])
    assert_same_bits(part.features_BF, torch.stack([2.0 * part.targets, 2.0 * part.targets + 1], dim=1))


def test_numbers_change_their_type_and_class_labels_do_not() -> None:
    labelled = some_rows().to(torch.device("cpu"), torch.float64)
    assert labelled.features_BF.dtype == torch.float64
    assert labelled.targets.dtype == torch.int64
    numeric = Rows(torch.zeros(2, 3), torch.ones(2, 1)).to(torch.device("cpu"), torch.float64)
    assert numeric.features_BF.dtype == numeric.targets.dtype == torch.float64


def test_rows_on_the_right_device_are_not_copied() -> None:
    rows = Rows(torch.zeros(2, 3), torch.ones(2, 1))
    moved = rows.to(torch.device("cpu"), torch.float32)
    assert moved.features_BF.data_ptr() == rows.features_BF.data_ptr()
    assert moved.targets.data_ptr() == rows.targets.data_ptr()


@pytest.mark.parametrize(
    ("rows", "batch_size", "sizes"), [(5, 2, [2, 2, 1]), (4, 2, [2, 2]), (5, 5, [5]), (5, 100, [5]), (1, 1, [1])]
)
def test_evaluation_visits_every_row_once_in_order(rows: int, batch_size: int, sizes: list[int]) -> None:
    batches = EvaluationBatches(some_rows(rows), batch_size)
    assert len(batches) == len(sizes)
    # A validation loader is passed over many times.
    for _ in range(2):
        found = list(batches)
        assert [len(features_BF) for features_BF, _ in found] == sizes
        assert_same_bits(torch.cat([features_BF for features_BF, _ in found]), some_rows(rows).features_BF)
        assert_same_bits(torch.cat([targets for _, targets in found]), torch.arange(rows))


def test_a_table_of_usual_size_is_evaluated_in_one_batch() -> None:
    assert len(EvaluationBatches(some_rows(10_000))) == 1
