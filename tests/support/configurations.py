"""Configurations as the command line composes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from mlp_lightning.config import Config, conf_dir

ComposeConfig = Callable[..., Config]


def plain_config(overrides: Sequence[str]) -> dict[str, object]:
    """What Hydra composes of overrides, as plain dicts."""
    with initialize_config_dir(version_base=None, config_dir=str(conf_dir()), job_name="train"):
        plain = OmegaConf.to_container(compose("train", list(overrides)), resolve=True)
    assert isinstance(plain, dict)
    return plain
