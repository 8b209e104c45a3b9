"""Draws docs/img/selection_front.svg from a real run: `python -m benchmarks.selector_picture`."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

from workers.selection import SelectionConfig, select

mpl.use("svg")
import matplotlib.pyplot as plt

OUT = Path(__file__).parents[1] / "docs" / "img" / "selection_front.svg"


def main() -> None:
    n, p, then, now, front = 400, 24, 30, 38, 60
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((n, p)) * np.arange(1, p + 1) ** -0.3
    selection = select(rows, SelectionConfig(budget=now, conflict_penalty=0.1))
    alpha = selection.alpha

    def gains(count: int) -> np.ndarray:
        inside = rows[selection.indices[:count]]
        solved = np.linalg.solve(np.eye(p) + alpha * inside.T @ inside, rows.T).T
        return np.log1p(alpha * (rows * solved).sum(axis=1))

    total = rows[selection.indices].sum(axis=0)
    conflict = np.clip(-(rows @ total) / np.linalg.norm(rows, axis=1) / np.linalg.norm(total), 0, 1)
    bound, score = gains(then), gains(now) - 0.1 * conflict
    left = np.setdiff1d(np.arange(n), selection.indices)
    order = left[np.argsort(-bound[left])]
    best = score[left].max()
    place = np.arange(len(order))
    figure, axes = plt.subplots(figsize=(8.5, 3.6), constrained_layout=True)
    axes.axvspan(-1, front - 0.5, color="#dce9f7", label="front: always up to date")
    axes.plot(place, bound[order], color="#555555", lw=1.2, label=f"bound: gain after {then} picks")
    axes.scatter(place, score[order], s=7, color="#1f6fb4", label=f"score after {now} picks")
    axes.axhline(best, color="#c0392b", lw=1, ls="--", label="best score today")
    axes.set(xlabel="rows left, by their bound", ylabel="nats", xlim=(-1, 250))
    axes.legend(frameon=False, fontsize=8)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "selection"
    figure.savefig(OUT, metadata={"Date": None})
    outside = bound[order[front:]].max()
    print(f"best score {best:.4f}, largest bound outside the front {outside:.4f}: exact = {best > outside}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
