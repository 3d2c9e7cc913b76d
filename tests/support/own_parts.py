"""A configuration whose network, optimizer and callback are those of the page on own parts."""

from __future__ import annotations

from typing import Any

NET, OPTIMIZER, CALLBACK = (f"my_package.parts.{name}" for name in ("GatedNet", "SignDescent", "StopBelow"))


def config(**changes: Any) -> dict[str, Any]:
    return {
        "data": {"name": "iris", "scaling": "standard", "val_fraction": 0.2, "batch_size": 30},
        "model": {"_target_": NET, "width": 8},
        "optimizer": {"_target_": OPTIMIZER, "lr": 0.01, "momentum": 0.9},
        "trainer": {"max_steps": 30, "accelerator": "cpu"},
        "allow_targets": ["my_package"],
        "verbosity": 0,
        **changes,
    }
