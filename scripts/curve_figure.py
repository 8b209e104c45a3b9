"""Draw the log-det curve of the last `make demo` for the README."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

DATA = Path("var/demo/curve.json")
PICTURE = Path("docs/img/curve.svg")


def draw(curve: dict[str, object], picture: Path) -> None:
    """Write the curve of the selection over those of its baselines as an SVG that is the same for the same data."""
    mpl.rcParams["svg.hashsalt"] = "spice"
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    baselines: dict[str, dict[str, list[float]]] = curve["baselines"]  # type: ignore[assignment]
    for name, line in baselines.items():
        axes.plot(line["rank"], line["log_det"], color="#999999", label=f"{name}, the same number of rows")
    axes.plot(curve["rank"], curve["log_det"], color="#b5452c", linewidth=2, label="spice")
    axes.set(xlabel="rows picked", ylabel="log det, nats", xlim=(0, None), ylim=(0, None))
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    draw(json.loads(DATA.read_text()), PICTURE)
