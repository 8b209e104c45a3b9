"""Draw the differences that the last `make proof` found, for the README and docs/proof.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

DATA = Path("var/proof")
PICTURE = Path("docs/img/proof.svg")
NAMES = ("clean", "20-mistakes")


def draw(proofs: list[dict[str, Any]], picture: Path) -> None:
    """Write each arm's held-out loss against random, with its interval, as an SVG: the same for the same data."""
    mpl.rcParams["svg.hashsalt"] = "spice"
    figure, axes = plt.subplots(1, len(proofs), figsize=(8, 2.6), layout="constrained", sharex=True)
    for panel, proof in zip(axes, proofs, strict=True):
        compared = [one for one in proof["comparisons"] if one["metric"] == "loss" and one["arm"] != "none"]
        smallest = compared[0]["smallest_effect"]
        panel.axvspan(-smallest, smallest, color="#eeeeee")
        panel.axvline(0, color="#999999", linewidth=1)
        for place, one in enumerate(reversed(compared)):
            color = "#b5452c" if one["arm"] == "selected" else "#555555"
            panel.plot(one["interval"], [place, place], color=color, linewidth=2)
            panel.plot([one["difference"]], [place], "o", color=color)
        panel.set_yticks(range(len(compared)), [one["arm"] for one in reversed(compared)])
        panel.set(
            title=proof["name"], xlabel="held-out loss less random's, nats a token", ylim=(-0.6, len(compared) - 0.4)
        )
        panel.spines[["top", "right"]].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    draw([json.loads((DATA / f"{name}.json").read_text()) for name in NAMES], PICTURE)
