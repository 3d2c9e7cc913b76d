"""Texts that are put together from those of sections are those of the whole configuration."""

from __future__ import annotations

import hashlib
import json

import pytest
import yaml

from mlp_lightning.config import parse_config
from mlp_lightning.runs.run_folder import NOT_IN_HASH, config_hash, config_yaml

CONFIGURATIONS = [
    {"data": {"name": "xor"}, "model": "wide_deep", "seed": 2**40},
    {"data": {"name": "iris"}, "optimizer": "adam", "name": "größe", "ckpt_path": "section: a"},
    {"data": {"name": "table", "path": "section.csv", "target": "section"}, "name": "section", "verbosity": 0},
    {"data": {"name": "table", "path": "a.csv", "target": ["a", "b"]}, "scheduler": "cosine", "seed": 7},
]


@pytest.mark.parametrize("plain", CONFIGURATIONS)
def test_config_yaml(plain) -> None:
    config = parse_config(plain)
    assert config_yaml(config.sections()) == yaml.dump(config.to_dict(), Dumper=yaml.SafeDumper, sort_keys=False)


@pytest.mark.parametrize("plain", CONFIGURATIONS)
def test_config_hash(plain) -> None:
    content = parse_config(plain).to_dict()
    for key in NOT_IN_HASH:
        section, _, name = key.rpartition(".")
        (content[section] if section else content).pop(name)
    expected = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert config_hash(parse_config(plain)) == expected
