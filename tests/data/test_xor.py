from __future__ import annotations

import numpy as np
import torch
from support.tolerances import assert_same_bits

from mlp_lightning.data import XORDataModule


def test_the_four_points() -> None:
    data = XORDataModule()
    data.setup()
    assert list(data.splits) == ["train"]
    rows = data.splits["train"]
    assert_same_bits(rows.features_BF, torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]))
    assert_same_bits(rows.targets, torch.tensor([[0.0], [1.0], [1.0], [0.0]]))


def test_the_task() -> None:
    data = XORDataModule()
    data.setup()
    assert (data.task, data.in_features, data.out_features, data.steps_per_epoch) == ("binary", 2, 1, 1)


def described(of_one_B1: np.ndarray) -> str:
    data = XORDataModule()
    data.setup()
    return data.describe_predictions(np.concatenate([1 - of_one_B1, of_one_B1], axis=1))


def test_the_published_run_is_described_as_published() -> None:
    hypothesis_BC = np.array([[0.00106364], [0.99889404], [0.99889404], [0.00165861]], dtype=np.float32)
    text = described(hypothesis_BC)
    assert text == (
        "\nHypothesis:  [[0.00106364]\n [0.99889404]\n [0.99889404]\n [0.00165861]]"
        "\nPrediction:  [[0.]\n [1.]\n [1.]\n [0.]]"
        "\nAccuracy:  1.0"
    )


def test_a_model_that_always_says_one_is_right_half_the_time() -> None:
    text = described(np.full((4, 1), 0.9, dtype=np.float32))
    assert text.endswith("\nPrediction:  [[1.]\n [1.]\n [1.]\n [1.]]\nAccuracy:  0.5")


def test_one_half_is_class_zero() -> None:
    text = described(np.full((4, 1), 0.5, dtype=np.float32))
    assert "Prediction:  [[0.]\n [0.]\n [0.]\n [0.]]" in text


def test_another_task_is_not_described() -> None:
    data = XORDataModule(task="multiclass")
    data.setup()
    assert not data.describes_predictions
    assert data.describe_predictions(np.full((4, 2), 0.5, dtype=np.float32)) == ""
