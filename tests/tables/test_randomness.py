from __future__ import annotations

import itertools

import pytest
import torch
from support.tolerances import assert_same_bits

from mlp_lightning.tables.randomness import derived_seed, generator


def test_a_derived_seed_is_the_same_forever() -> None:
    # The first 16 hexadecimal digits that `printf 0/shuffle/0 | sha256sum` prints, halved. A later version
    # can only repeat a run if this stays as it is.
    assert derived_seed(0, "shuffle") == 0xD1D0E81994492553 // 2
    assert derived_seed(777, "split/val", 12) == 0x01409D12E5763623 // 2


def test_derived_seeds_are_within_what_torch_takes() -> None:
    for seed, epoch in itertools.product([0, 1, 777, 2**63 - 1], [0, 1, 10**9]):
        derived = derived_seed(seed, "shuffle", epoch)
        assert 0 <= derived < 2**63
        torch.Generator().manual_seed(derived)


def test_derived_seeds_use_the_whole_range() -> None:
    found = [derived_seed(seed, "shuffle") for seed in range(1000)]
    # Of each bit about half are ones: 500 expected, the standard deviation is 16.
    for bit in range(63):
        assert 400 < sum(one >> bit & 1 for one in found) < 600


def test_every_argument_moves_the_seed() -> None:
    arguments = list(
        itertools.product(range(12), ["shuffle", "split/val", "split/test", "training", "", "/"], range(12))
    )
    assert len({derived_seed(*one) for one in arguments}) == len(arguments)


def test_arguments_do_not_run_into_each_other() -> None:
    assert derived_seed(1, "a", 23) != derived_seed(12, "a", 3)
    assert derived_seed(1, "a/2", 3) != derived_seed(1, "a", 23)


def test_a_generator_gives_the_same_numbers_each_time_and_leaves_the_global_one_alone() -> None:
    state = torch.random.get_rng_state()
    first = torch.rand(10, generator=generator(5, "shuffle", 2))
    second = torch.rand(10, generator=generator(5, "shuffle", 2))
    assert_same_bits(first, second)
    assert_same_bits(torch.random.get_rng_state(), state)


def test_a_generator_is_on_the_cpu() -> None:
    assert generator(0, "shuffle").device.type == "cpu"


@pytest.mark.parametrize(("purpose", "epoch"), [("split/val", 0), ("shuffle", 1), ("training", 0)])
def test_numbers_for_one_purpose_are_unrelated_to_those_for_another(purpose: str, epoch: int) -> None:
    here = torch.randn(10_000, generator=generator(0, "shuffle"))
    there = torch.randn(10_000, generator=generator(0, purpose, epoch))
    # The correlation of independent numbers has a standard deviation of 0.01.
    assert abs(float(torch.corrcoef(torch.stack([here, there]))[0, 1])) < 0.05
