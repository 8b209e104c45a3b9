"""The figures of a job as SVG, each with its words and the table behind it.

Drawn here and not by a plotting library: the service has none to load, the same SVG serves the page (which lends it
its colours, light or dark), the report and whoever downloads it, and six plain figures need few lines.
"""

from app.reports.figures.draw import FIGURES, draw_figures
from app.reports.figures.figure import Figure, Mark, Table

__all__ = ["FIGURES", "Figure", "Mark", "Table", "draw_figures"]
