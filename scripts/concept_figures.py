"""Draw the pictures of docs/concepts.md. Every number in them is computed here, or is one that the demo printed.

python -m scripts.concept_figures
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Polygon

from workers.selection import SelectionConfig, select

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "img"
INK, SOFT, RUST, SLATE, SAND, GOOD = "#211e1a", "#8a8378", "#ae3a12", "#40617a", "#e9e1d4", "#1f6b35"
COPIES = 6


def main() -> None:
    """Write all pictures."""
    mpl.rcParams.update({"svg.hashsalt": "spice", "font.size": 10, "axes.edgecolor": SOFT, "text.color": INK})
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, draw in (
        ("gradient", gradient),
        ("volume", volume),
        ("duplicate", duplicate),
        ("conflict", conflict),
        ("certificate", certificate),
    ):
        draw().savefig(IMAGES / f"concept-{name}.svg", metadata={"Date": None}, facecolor="white")
        plt.close("all")


def gradient() -> Figure:
    """Rows as arrows: what each would change of the model."""
    figure, axes = plt.subplots(figsize=(6.4, 2.9), layout="constrained")
    rows = (
        ("Sum 12 and 30", (0.98, 0.2), (1.02, 0.2), "left", RUST),
        ("Sum 7 and 5", (0.84, 0.46), (0.88, 0.48), "left", RUST),
        ("Translate «guten Tag»", (-0.25, 0.92), (-0.3, 0.98), "right", SLATE),
        ("A good answer, little left to learn", (0.06, -0.16), (0.1, -0.22), "left", SOFT),
        ("A wrong sum", (-0.8, -0.3), (-0.84, -0.3), "right", INK),
    )
    for words, end, place, side, colour in rows:
        _arrow(axes, (0, 0), end, colour)
        axes.annotate(words, place, ha=side, va="center", color=colour)
    _plain(axes, (-2.1, 2.3), (-0.55, 1.1))
    return figure


def volume() -> Figure:
    """Two pairs of rows of the same length: the area that they span, and the log-det that it amounts to."""
    figure, panels = plt.subplots(1, 2, figsize=(6.4, 2.7), layout="constrained")
    one = np.array([1.0, 0.0])
    for axes, degrees, words in zip(
        panels, (15, 90), ("two rows that say nearly the same", "two rows that differ"), strict=True
    ):
        other = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
        information = np.linalg.slogdet(np.eye(2) + np.outer(one, one) + np.outer(other, other))[1]
        axes.add_patch(Polygon([(0, 0), one, one + other, other], closed=True, facecolor=SAND, edgecolor="none"))
        _arrow(axes, (0, 0), tuple(one), RUST)
        _arrow(axes, (0, 0), tuple(other), SLATE)
        axes.set_title(f"{words}\n{information:.2f} nats together", fontsize=10, color=INK)
        _plain(axes, (-0.15, 2.1), (-0.12, 1.12))
    return figure


def duplicate() -> Figure:
    """What each further copy of one row adds."""
    picked = select(np.ones((COPIES, 1)), SelectionConfig(budget=COPIES, conflict_penalty=0.0, alpha=1.0))
    gains = picked.marginal_gains
    figure, axes = plt.subplots(figsize=(6.4, 2.5), layout="constrained")
    places = np.arange(1, COPIES + 1)
    axes.bar(places, gains, color=[RUST] + [SAND] * (COPIES - 1), edgecolor=SOFT, linewidth=0.6)
    for place, gain in zip(places, gains, strict=True):
        axes.annotate(f"{gain:.2f}", (place, gain), ha="center", va="bottom")
    axes.set_xticks(places, ["the row", "its copy", *(f"copy {number}" for number in range(2, COPIES))])
    axes.set(ylabel="adds, nats", ylim=(0, max(gains) * 1.2))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def conflict() -> Figure:
    """The mean of the picks so far, and two candidates: one beside it, one against it."""
    figure, axes = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
    picks = np.array([[0.9, 0.25], [0.75, 0.55], [0.95, -0.05]])
    for x, y in picks:
        _arrow(axes, (0, 0), (x, y), SAND)
    mean = picks.mean(axis=0)
    _arrow(axes, (0, 0), tuple(mean), RUST)
    axes.annotate("mean of the picks so far", mean + np.array([0.05, 0.02]), color=RUST, va="center")
    for candidate, colour in ((np.array([0.1, 0.8]), SLATE), (np.array([-0.75, 0.2]), INK)):
        cosine = float(candidate @ mean / np.linalg.norm(candidate) / np.linalg.norm(mean))
        _arrow(axes, (0, 0), tuple(candidate), colour)
        words = f"cosine {cosine:.2f}: conflict {max(0.0, -cosine):.2f}"
        axes.annotate(
            words, candidate + np.array([0.03, 0.07]), color=colour, ha="left" if candidate[0] > 0 else "center"
        )
    _plain(axes, (-1.5, 2.1), (-0.2, 1.0))
    return figure


def certificate() -> Figure:
    """What the demo's subset holds, what no subset of its size can exceed, and where the best one must lie."""
    holds, bound, random = 13.0, 21.6, 12.0
    figure, axes = plt.subplots(figsize=(6.4, 1.9), layout="constrained")
    axes.barh([1], [holds], color=RUST, height=0.5)
    axes.barh([0], [random], color=SAND, height=0.5)
    axes.barh([1], [bound - holds], left=holds, color="none", edgecolor=GOOD, hatch="///", height=0.5, linewidth=0.8)
    axes.annotate(f"the subset: {holds} nats", (holds / 2, 1), ha="center", va="center", color="white")
    axes.annotate("the best subset is in here", ((holds + bound) / 2, 1.34), ha="center", va="bottom", color=GOOD)
    axes.annotate(f"{bound}: nothing of this size holds more", (bound, 0.62), ha="right", va="top")
    axes.annotate(f"as many random rows: {random}", (bound * 0.01 + random, 0), va="center")
    axes.set(xlim=(0, bound * 1.02), ylim=(-0.4, 1.75), yticks=[], xlabel="information, nats")
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _arrow(axes: Axes, start: tuple[float, ...], end: tuple[float, ...], colour: str) -> None:
    axes.annotate(
        "", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 0, "shrinkB": 0}
    )


def _plain(axes: Axes, across: tuple[float, float], up: tuple[float, float]) -> None:
    axes.set(xlim=across, ylim=up, aspect="equal")
    axes.axis("off")


if __name__ == "__main__":
    main()
