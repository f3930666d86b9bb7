"""Do the source papers' figures and tables come out? One file a paper, one function a figure. Start at ``run``."""

from calipers.papers.registry import Bench, Figure, Result, Scale, figure, figures, run

__all__ = ["Bench", "Figure", "Result", "Scale", "figure", "figures", "run"]
