from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from support.tolerances import assert_same_bits

from mlp_lightning.data import IrisDataModule


def iris(**options: object) -> IrisDataModule:
    data = IrisDataModule(**options)
    data.setup()
    return data


def test_all_rows_are_those_of_scikit_learn_in_their_order() -> None:
    features_BF, labels_B = load_iris(return_X_y=True)
    rows = iris().splits["train"]
    assert_same_bits(rows.features_BF, torch.tensor(features_BF, dtype=torch.float32))
    assert_same_bits(rows.targets, torch.tensor(labels_B, dtype=torch.int64))


def test_the_task() -> None:
    data = iris()
    assert (data.task, data.in_features, data.out_features) == ("multiclass", 4, 3)
    assert list(data.target.class_names) == load_iris().target_names.tolist()


def test_a_first_and_a_last_row_by_hand() -> None:
    rows = iris().splits["train"]
    assert_same_bits(rows.features_BF[0], torch.tensor([5.1, 3.5, 1.4, 0.2]))
    assert_same_bits(rows.features_BF[-1], torch.tensor([5.9, 3.0, 5.1, 1.8]))
    assert (int(rows.targets[0]), int(rows.targets[-1])) == (0, 2)


def test_split_sizes() -> None:
    splits = iris(val_fraction=0.2, test_fraction=0.2).splits
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 90, "val": 30, "test": 30}
    for rows in splits.values():
        assert len(set(rows.targets.bincount().tolist())) == 1


@pytest.mark.parametrize("tenths", [(1, 1), (1, 2), (2, 1), (3, 3)])
def test_tenths_of_the_rows_are_split_off_exactly(tenths: tuple[int, int]) -> None:
    splits = iris(val_fraction=tenths[0] / 10, test_fraction=tenths[1] / 10).splits
    assert (len(splits["val"]), len(splits["test"])) == (15 * tenths[0], 15 * tenths[1])


def test_the_splits_together_are_all_flowers() -> None:
    splits = iris(val_fraction=0.2, test_fraction=0.2).splits
    together = np.concatenate(
        [np.column_stack([rows.features_BF.numpy(), rows.targets.numpy()]) for rows in splits.values()]
    )
    features_BF, labels_B = load_iris(return_X_y=True)
    everything = np.column_stack([features_BF.astype(np.float32), labels_B])
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, everything.tolist()))


def test_the_seed_decides_which_flowers_are_held_out() -> None:
    first, again, other = (iris(val_fraction=0.2, seed=seed).splits["val"] for seed in (0, 0, 1))
    assert_same_bits(first.features_BF, again.features_BF)
    assert not torch.equal(first.features_BF, other.features_BF)
