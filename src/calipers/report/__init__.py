"""How a run is told: records in, one self-contained page (or a few lines of text) out. Open ``page.py`` first."""

from calipers.report.junit import junit
from calipers.report.page import render, render_comparison, write, write_comparison
from calipers.report.text import side_by_side, table

__all__ = ["junit", "render", "render_comparison", "side_by_side", "table", "write", "write_comparison"]
