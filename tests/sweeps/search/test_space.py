"""Spaces in Hydra's words, and the points that are drawn from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from mlp_lightning.config.conf_files import conf_file
from mlp_lightning.ensembles import space as of_preset
from mlp_lightning.errors import ConfigError
from mlp_lightning.sweeps.search.space import Real, Space, Values, Whole, random_points


def space_of(*overrides: str) -> Space:
    return Space.of(OverridesParser.create().parse_overrides(list(overrides)))


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("1,2,5", Values(("1", "2", "5"))),
        ("choice(tanh,relu)", Values(("tanh", "relu"))),
        ("[4,3],[5,6]", Values(("[4,3]", "[5,6]"))),
        ("range(8,129)", Whole(8, 128)),
        ("range(8,129,8)", Whole(8, 128, 8)),
        ("range(5,0,-2)", Whole(1, 5, 2)),
        ("tag(log,range(1,1001))", Whole(1, 1000, 1, True)),
        ("range(0.25,1,0.25)", Values(("0.25", "0.5", "0.75"))),
        ("interval(0.5,2)", Real(0.5, 2.0)),
        ("tag(log,interval(1e-4,1))", Real(1e-4, 1.0, True)),
        ("int(interval(2,9))", Whole(2, 9)),
        ("int(tag(log,interval(2,90)))", Whole(2, 90, 1, True)),
    ],
)
def test_a_dimension_is_what_users_of_hydra_expect(text: str, dimension: Any) -> None:
    assert space_of(f"a.b={text}").dimensions == {"a.b": dimension}


@pytest.mark.parametrize("first", ["optimizer.lr", "+optimizer.lr", "++optimizer.lr"])
@pytest.mark.parametrize("last", ["optimizer.lr", "++optimizer.lr"])
def test_a_key_is_the_same_however_it_is_set(first: str, last: str) -> None:
    space = space_of(f"{first}=interval(0.1,1)", f"{last}=0.3")
    assert (space.dimensions, list(space.fixed)) == ({}, [f"{last}=0.3"])
    space = space_of(f"{first}=0.3", f"{last}=interval(0.1,1)")
    assert (list(space.dimensions), list(space.fixed)) == ([last], [])


def test_the_last_override_of_a_key_counts() -> None:
    space = space_of("lr=interval(0,1)", "width=1,2", "lr=0.5", "+other='a b'", "~gone")
    assert space.dimensions == {"width": Values(("1", "2"))}
    assert space.overrides({"width": "2"}) == ["lr=0.5", "+other='a b'", "~gone", "width=2"]
    assert space.size == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("interval(2,1)", "is no interval from a lower to a higher number"),
        ("tag(log,interval(0,1))", "its lower end must be above 0"),
        ("tag(log,range(0,9))", "its lower end must be above 0"),
        ("tag(log,range(1,9,2))", "in steps of 1 only"),
        ("range(1,9,0)", "is no list of values"),
        ("range(3,3)", "has no values"),
    ],
)
def test_what_is_no_dimension(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        space_of(f"a={text}", "b=1,2")


def test_points_lie_in_the_space_and_repeat() -> None:
    space = space_of("a=range(3,31,3)", "b=tag(log,interval(1e-3,10))", "c=x,y", "d=tag(log,range(1,9))")
    points = random_points(space, seed=4, count=300)
    assert points[:50] == random_points(space, seed=4, count=50)
    assert points != random_points(space, seed=5, count=300)
    assert {int(one["a"]) for one in points} == set(range(3, 31, 3))
    assert {int(one["d"]) for one in points} == set(range(1, 9))
    assert {one["c"] for one in points} == {"x", "y"}
    logs = np.log10([float(one["b"]) for one in points])
    assert logs.min() >= -3
    assert logs.max() <= 1
    # Uniform: in quarters of the line there are about equally many.
    counts, _ = np.histogram(logs, bins=4, range=(-3, 1))
    assert (np.abs(counts - 75) < 4 * math.sqrt(75)).all()


def test_a_whole_number_by_its_logarithm_is_as_frequent_as_its_part_of_the_line() -> None:
    random = np.random.default_rng(0)
    drawn = [int(Whole(1, 4, 1, True).draw(random)) for _ in range(4000)]
    line = math.log(4.5) - math.log(0.5)
    for number in range(1, 5):
        share = (math.log(number + 0.5) - math.log(number - 0.5)) / line
        assert drawn.count(number) / 4000 == pytest.approx(share, abs=4 * math.sqrt(share / 4000))


def test_no_point_is_drawn_twice_even_if_all_are_drawn() -> None:
    space = space_of("a=range(0,7)", "b=tag(log,range(1,9))", "c=x,y")
    points = random_points(space, seed=1, count=int(space.size))
    assert len({tuple(one.values()) for one in points}) == 7 * 8 * 2


def test_the_space_best_is_that_of_the_preset() -> None:
    params = conf_file("search/space/best")["hydra"]["sweeper"]["params"]
    dimensions = space_of(*(f"{key}={text}" for key, text in params.items())).dimensions
    depths, embeddings, residual, _ = (set(one) for one in zip(*of_preset._STRUCTURES, strict=True))

    def texts(values: Any) -> set[str]:
        return {yaml.safe_dump(one).split("\n")[0] for one in values}

    def values_of(key: str) -> set[str]:
        one = dimensions[key]
        assert isinstance(one, Values)
        return {text.lower() for text in one.texts}

    assert dimensions["model.depth"] == Whole(min(depths), max(depths))
    assert values_of("model.numeric_embedding") == embeddings
    assert values_of("model.residual") == texts(residual)
    assert values_of("model.hidden_units") == texts(of_preset._WIDTHS)
    assert values_of("model.dropout") == texts(of_preset._DROPOUTS)
    assert dimensions["optimizer.lr"] == Real(*of_preset._LEARNING_RATES, True)
    assert dimensions["optimizer.weight_decay"] == Real(*of_preset._WEIGHT_DECAYS, True)
