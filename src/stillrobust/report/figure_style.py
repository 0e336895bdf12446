"""The style of figures in papers: sizes of CVPR's page, fonts that stay text, colours for all eyes.

Matplotlib is imported when the first figure is drawn.
"""

import io
import warnings
from collections.abc import Callable
from typing import Any

from stillrobust.untrusted import printable

# inches; cvpr.sty of cvpr-org/author-kit sets \textwidth to 6.875in and \columnsep to 0.3125in, so
# that \columnwidth is 3.28125in = 237.13594pt. Its guidelines call that 3 1/4 inches.
COLUMN_WIDTH, PAGE_WIDTH = 3.25, 6.875
FONT_SIZE, SMALL_FONT = 8, 7  # points; captions of CVPR have 9
DPI = 300
# Okabe and Ito's colours (2008, Color Universal Design), distinct with every kind of colour vision;
# markers, dashes and hatches tell them apart in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 3)))
HATCHES = ("", "////", "....", "xxxx", "----", "\\\\\\\\")
GREY = "#999999"
LONGEST_NAME = 44  # characters of a name in a legend
STYLE: dict[Any, Any] = {
    "pdf.fonttype": 42,  # TrueType: editable text, and what conferences ask for
    "font.family": "STIXGeneral",  # of matplotlib; it resembles CVPR's Times
    "font.size": FONT_SIZE,
    "axes.labelsize": FONT_SIZE,
    "axes.titlesize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "legend.fontsize": SMALL_FONT,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "text.parse_math": False,  # names from data are text
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "hatch.linewidth": 0.5,
}


def draw_figure(width: float, height: float, draw: Callable[[Any], None]) -> dict[str, bytes]:
    """Draw a figure as PDF and PNG; the same numbers give the same bytes.

    Args:
        width: Inches.
        height: Inches.
        draw: Fills an empty matplotlib figure.

    Returns:
        ``{"pdf": ..., "png": ...}``.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # a name may have letters that the font lacks; they become boxes
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout is made once for both files
        files = {}
        for kind, dated in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=DPI, metadata=dated)
            files[kind] = buffer.getvalue()
    return files


def short_name(name: str) -> str:
    """Return a name for a legend, without control characters, shortened in the middle."""
    text = printable(name)
    if len(text) <= LONGEST_NAME:
        return text
    half = (LONGEST_NAME - 1) // 2
    return f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"
