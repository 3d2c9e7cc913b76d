"""A data set in the form that mlp_lightning takes it: a function that returns a data frame."""

from __future__ import annotations

import numpy as np
import pandas as pd


def load_tides(hours: int = 600, harbour: str = "river") -> pd.DataFrame:
    """The height of the water at a made-up harbour, hour by hour: the moon's tide, the sun's, and the wind's.

    Args:
        hours: number of rows.
        harbour: ``river`` or ``sea``, where the wind counts for less.
    """
    hour = np.arange(hours)
    random = np.random.default_rng(7)
    wind = random.normal(size=hours)
    moon, sun = np.sin(2 * np.pi * hour / 12.42), np.sin(2 * np.pi * hour / 12)
    effect = {"river": 0.6, "sea": 0.2}[harbour]
    height = 2 * moon + 0.7 * sun + effect * wind + 0.05 * random.normal(size=hours)
    coast = np.where(wind > 0, "windward", "lee")
    return pd.DataFrame({"moon": moon, "sun": sun, "wind": wind, "coast": coast, "height": height})
