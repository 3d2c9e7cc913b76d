"""What all figures share: one style, and their content as a PNG file.

Figures are drawn without pyplot, which keeps global state; matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Draw with the same style for every matplotlibrc; restores your settings afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # A dollar sign in a name or value does not start a formula.
        matplotlib.rc("text", parse_math=False)
        matplotlib.rc("axes", grid=True)
        matplotlib.rc("grid", alpha=0.25)
        matplotlib.rc("axes.spines", top=False, right=False)
        yield


def png_bytes(figure: Figure) -> bytes:
    """The figure as the content of a PNG file; the same figure gives the same bytes."""
    content = io.BytesIO()
    with figure_style(), warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
