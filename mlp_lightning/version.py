"""What ``--version`` prints."""

from __future__ import annotations

from importlib.metadata import version


def version_text() -> str:
    """The versions of this package and of Hydra, which is not imported for it."""
    return f"mlp-lightning {version('mlp-lightning')} (Hydra {version('hydra-core')})"
