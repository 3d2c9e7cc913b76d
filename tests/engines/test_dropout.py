"""Dropout masks: the generator against published and plain reckoning, and the statistics of its masks."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from support.tolerances import assert_same_bits
from torch import Tensor

from mlp_lightning.engines.dropout import DropoutMasks, ModuleDropout, factor_of_kept, philox, threshold
from mlp_lightning.networks import MLP
from mlp_lightning.networks.dropout import Dropout
from mlp_lightning.tables.randomness import derived_seed

ALL = 2**32 - 1
FLOAT = torch.empty(0)


def kept(seed: int, probability: float, step: int, rows: int, units: Sequence[int]) -> list[Tensor]:
    """Which numbers one run keeps, for each layer ``(B, H)``."""
    return [one[0] > 0 for one in DropoutMasks([seed], [probability], units, FLOAT).of_step(step, rows)]


# ---- the generator -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([ALL] * 4, [ALL] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_words_of_its_authors(counter: list[int], key: list[int], expected: str) -> None:
    """The known answers of Random123, the library of Salmon et al. (2011)."""
    found = philox([torch.tensor([one]) for one in counter], [torch.tensor([one]) for one in key])
    assert " ".join(f"{one.item():08x}" for one in found) == expected


def philox_of_integers(counter: list[int], key: list[int]) -> list[int]:
    for _ in range(10):
        left, right = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [(right >> 32) ^ counter[1] ^ key[0], right & ALL, (left >> 32) ^ counter[3] ^ key[1], left & ALL]
        key = [(key[0] + 0x9E3779B9) & ALL, (key[1] + 0xBB67AE85) & ALL]
    return counter


def is_kept(seed: int, probability: float, step: int, layer: int, row: int, unit: int) -> bool:
    """One number by Python's integers, as the module's description says."""
    derived = derived_seed(seed, "dropout")
    words = philox_of_integers([step & ALL, step >> 32, layer // 2, 0], [derived & ALL, derived >> 32])
    first, second = words[layer % 2 * 2 :][:2]
    x = (row * 0x9E3779B1 + unit // 2 + first) & ALL
    x ^= x >> 16
    x = x * 0x21F0AAAD & ALL
    x ^= x >> 15 ^ second
    x = x * 0xD35A2D97 & ALL
    x ^= x >> 15
    half = x >> 16 if unit % 2 else x & 0xFFFF
    signed = half - 2**16 if half >= 2**15 else half
    return signed + 2**15 >= round(probability * 2**16)


@pytest.mark.parametrize("seed", range(6))
def test_masks_by_plain_integers(seed: int) -> None:
    draw = random.Random(seed)
    units = [draw.randint(1, 9) for _ in range(draw.randint(1, 5))]
    rows, probability, step = draw.randint(1, 700), draw.random(), draw.choice([0, 3, 2**31 + 5, 2**40 + seed])
    masks = DropoutMasks([seed], [probability], units, FLOAT)
    for at in (step, step + 1, step + 400, step):
        for layer, factors_KBH in enumerate(masks.of_step(at, rows)):
            assert factors_KBH.shape == (1, rows, units[layer])
            for row in {0, rows - 1, draw.randrange(rows)}:
                expected = [is_kept(seed, probability, at, layer, row, unit) for unit in range(units[layer])]
                assert (factors_KBH[0, row] > 0).tolist() == expected


@pytest.mark.parametrize("probability", [0.1, 0.5, 1e-9, 0.75, 1 - 1e-9, 0.30001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mean_over_all_masks_is_1(probability: float, dtype: torch.dtype) -> None:
    steps = threshold(probability)
    assert 1 <= steps < 2**16
    assert abs(steps / 2**16 - probability) <= max(2**-17, 2**-16 * (probability < 1e-4 or probability > 0.999))
    kept_share = 1 - steps / 2**16
    assert factor_of_kept(probability) * kept_share == pytest.approx(1, abs=1e-15)
    (factors_KBH,) = DropoutMasks([3], [probability], [5], torch.empty(0, dtype=dtype)).of_step(0, 50)
    expected = torch.tensor([0.0, 1 / kept_share], dtype=torch.float64).to(dtype)
    assert factors_KBH.dtype == dtype
    assert set(factors_KBH.unique().tolist()) <= set(expected.tolist())


def test_a_member_has_its_own_masks_in_any_company() -> None:
    seeds, rates, units = [5, 1, 5, 1, 9], [0.2, 0.5, 0.2, 0.2, 0.0], [7, 4, 6]
    together = DropoutMasks(seeds, rates, units, FLOAT)
    for step, rows in ((0, 9), (1, 12), (130, 4), (1, 12)):
        found = together.of_step(step, rows)
        chosen = together.select([4, 1], [3, 4, 5]).of_step(step, rows)
        for member, (seed, rate) in enumerate(zip(seeds, rates, strict=True)):
            alone = DropoutMasks([seed], [rate], [one + member for one in units], FLOAT).of_step(step, rows + member)
            for whole, mine in zip(found, alone, strict=True):
                assert_same_bits(whole[member], mine[0, :rows, : whole.shape[-1]])
        for one, other in zip(chosen, found, strict=True):
            assert_same_bits(one, other[[4, 1], :, : one.shape[-1]])
    assert (found[0][4] == 1).all()


def test_members_with_the_same_masks_share_them() -> None:
    (factors,) = DropoutMasks([4, 4, 4], [0.3] * 3, [5], FLOAT).of_step(2, 6)
    assert factors.shape == (1, 6, 5)


def test_many_rows_are_cut_into_parts_without_a_change() -> None:
    (whole,), (few,) = kept(1, 0.4, 0, 3000, [80]), kept(1, 0.4, 0, 40, [80])
    assert_same_bits(whole[:40], few)
    expected = [is_kept(1, 0.4, 0, 0, 2999, unit) for unit in range(80)]
    assert whole[-1].tolist() == expected


def test_words_of_a_step_have_different_numbers() -> None:
    """Rows times words up to about 2 ** 31: no two words of a large batch are one."""
    row_B, word_W = np.arange(2048, dtype=np.uint32), np.arange(512, dtype=np.uint32)
    numbers = row_B[:, None] * np.uint32(0x9E3779B1) + word_W
    assert len(np.unique(numbers)) == numbers.size
    # And of the largest: rows as near as the widest layer is long are far apart.
    starts = np.sort(np.arange(2**17, dtype=np.uint32) * np.uint32(0x9E3779B1)).astype(np.int64)
    assert np.diff(starts).min() > 2**13


# ---- statistics, with fixed seeds: a change of the generator either passes or fails for good --------------------

ROWS, UNITS = 512, 64


def stack(axis: str, probability: float) -> Tensor:
    """Many masks ``(N, B, H)`` that differ in one thing."""
    if axis == "step":
        masks = DropoutMasks([11], [probability], [UNITS], FLOAT)
        return torch.stack([masks.of_step(step, ROWS)[0][0] > 0 for step in range(64)])
    if axis == "seed":
        return torch.stack([kept(seed, probability, 7, ROWS, [UNITS])[0] for seed in range(64)])
    return torch.stack(kept(5, probability, 3, ROWS, [UNITS] * 64))


@pytest.mark.parametrize("axis", ["step", "seed", "layer"])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_the_share_of_dropped_numbers(axis: str, probability: float) -> None:
    """Over all, and for each mask, row and unit: a chi-square test of the counts."""
    dropped = ~stack(axis, probability)
    p = threshold(probability) / 2**16
    total = dropped.sum().item()
    assert abs(total - p * dropped.numel()) < 4 * (p * (1 - p) * dropped.numel()) ** 0.5
    for kept_axis in range(3):
        others = [one for one in range(3) if one != kept_axis]
        counts = dropped.sum(others).double()
        each = dropped.numel() / len(counts)
        statistic = ((counts - p * each).square() / (p * (1 - p) * each)).sum().item()
        assert 1e-4 < chi2.sf(statistic, len(counts)) < 1 - 1e-4


def joint(one: Tensor, other: Tensor, probability: float) -> float:
    """How likely at least as large a covariance is for independent numbers."""
    p = threshold(probability) / 2**16
    q, n = 1 - p, one.numel()
    both, left, right = (values.sum().item() for values in (one & other, one, other))
    covariance = both - q * (left + right) + q * q * n
    return float(chi2.sf(covariance**2 / (n * (p * q) ** 2), 1))


@pytest.mark.parametrize("axis", ["step", "seed", "layer"])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_neighbours_are_independent(axis: str, probability: float) -> None:
    """Units, rows and masks at many distances, in one dimension and in two."""
    masks_NBH = stack(axis, probability)
    found = []
    for shift in (1, 2, 3, 4, 5, 8, 13, 16, 21, 32):
        found.append(joint(masks_NBH[:, :, shift:], masks_NBH[:, :, :-shift], probability))
        found.append(joint(masks_NBH[:, shift:], masks_NBH[:, :-shift], probability))
        found.append(joint(masks_NBH[shift:], masks_NBH[:-shift], probability))
        found.append(joint(masks_NBH[:, shift:, 1:], masks_NBH[:, :-shift, :-1], probability))
        found.append(joint(masks_NBH[shift:, :, 1:], masks_NBH[:-shift, :, :-1], probability))
    for shift in (55, 89, 144, 233, 377):  # rows whose words have the nearest numbers
        for unit in range(4):
            right = masks_NBH[:, :-shift, : UNITS - unit]
            found.append(joint(masks_NBH[:, shift:, unit:], right, probability))
    assert min(found) > 1e-4
    # P-values of a good generator are even.
    counts = np.histogram(found, bins=5, range=(0, 1))[0]
    assert chi2.sf(((counts - len(found) / 5) ** 2 / (len(found) / 5)).sum(), 4) > 1e-4


@pytest.mark.parametrize("axis", ["step", "seed", "layer"])
def test_patterns_of_many_numbers_are_even(axis: str) -> None:
    """Eight numbers in a row, in a column and through the masks; squares of four."""
    masks_NBH = stack(axis, 0.5)
    powers = 2 ** torch.arange(8)
    rows = (masks_NBH.unflatten(2, (-1, 8)) * powers).sum(-1)
    columns = (masks_NBH.transpose(1, 2).unflatten(2, (-1, 8)) * powers).sum(-1)
    through = (masks_NBH.permute(1, 2, 0).unflatten(2, (-1, 8)) * powers).sum(-1)
    corners = [masks_NBH[:, a : ROWS - 1 + a, b : UNITS - 1 + b] for a in (0, 1) for b in (0, 1)]
    parity = (corners[0] ^ corners[1] ^ corners[2] ^ corners[3]).long()
    for patterns, kinds in ((rows, 256), (columns, 256), (through, 256), (parity, 2)):
        counts = torch.bincount(patterns.flatten(), minlength=kinds).double()
        each = patterns.numel() / kinds
        assert 1e-4 < chi2.sf(((counts - each).square() / each).sum().item(), kinds - 1) < 1 - 1e-4


def test_how_many_numbers_a_row_drops() -> None:
    """The counts of rows are binomial: neither too even nor too uneven."""
    dropped_NB = (~stack("step", 0.5)).sum(-1).flatten().double()
    variance = dropped_NB.var().item()
    assert abs(variance / (UNITS / 4) - 1) < 4 * (2 / len(dropped_NB)) ** 0.5


# ---- the layer ---------------------------------------------------------------------------------------------


def test_in_a_loop_of_your_own_the_layer_is_that_of_torch() -> None:
    x_BH = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    layer = Dropout(0.3, 30)
    torch.manual_seed(4)
    mine = layer(x_BH)
    torch.manual_seed(4)
    assert_same_bits(mine, torch.nn.functional.dropout(x_BH, 0.3))
    assert_same_bits(layer.eval()(x_BH), x_BH)


def test_an_engine_gives_the_masks_and_takes_them_back() -> None:
    model = MLP(3, 2, [6, 5], dropout=0.4)
    dropout = ModuleDropout.of(model, 8)
    assert dropout is not None
    layers = [one for one in model.modules() if isinstance(one, Dropout)]
    expected = DropoutMasks([8], [0.4], [6, 5], FLOAT).of_step(12, 10)
    dropout.begin(12, 10)
    for layer, factors in zip(layers, expected, strict=True):
        ones = torch.ones_like(factors[0])
        assert_same_bits(layer(ones), factors[0])
        assert_same_bits(layer.eval()(ones), ones)
        layer.train()
    dropout.show(slice(4, 7))
    assert_same_bits(layers[1](torch.ones(3, 5)), expected[1][0, 4:7])
    dropout.end()
    assert [one.factors for one in layers] == [None, None]
    assert pickle.loads(pickle.dumps(layers[0])).units == copy.deepcopy(layers[0]).units == 6
    assert ModuleDropout.of(MLP(3, 2, [6]), 8) is None
