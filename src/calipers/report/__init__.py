"""How a run is told: records in, one self-contained page (or a few lines of text) out. Open ``page.py`` first."""

from calipers.report.junit import junit
from calipers.report.page import render, render_comparison, write, write_comparison
from calipers.report.text import side_by_side, table
from calipers.report.words import second_pass, uncertified

__all__ = [
    "junit",
    "render",
    "render_comparison",
    "second_pass",
    "side_by_side",
    "table",
    "uncertified",
    "write",
    "write_comparison",
]
