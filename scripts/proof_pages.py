"""Write what the last `make proof` found into README.md and docs/proof.md, and draw it (docs/img/proof.svg)."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from demo.proof import ARMS, CLEAN, FILES, MISTAKES, file_name, table
from scripts.measured_part import is_made
from spice_client import Proof

PICTURE = Path("docs/img/proof.svg")
TARGET = "docs-proof"


def found() -> dict[str, Proof]:
    """The proofs that there are, by their names.

    Raises:
        SystemExit: None has been made here.
    """
    paths = {name: FILES / f"{file_name(name)}.json" for name in ARMS}
    there = {name: path for name, path in paths.items() if path.exists()}
    if not there:
        raise SystemExit(f"{FILES} has no proof: run `make proof` first")
    return {name: Proof.model_validate(json.loads(path.read_text())) for name, path in there.items()}


def sentence(proofs: dict[str, Proof]) -> str:
    """What was found, in one sentence."""
    said = []
    for name, proof in proofs.items():
        one = next(one for one in proof.comparisons if (one.arm, one.metric) == ("selected", "loss"))
        assert one.difference is not None  # noqa: S101 - every seed of a proof that succeeded
        assert one.interval is not None  # noqa: S101
        low, high = one.interval
        verdict = one.verdict.replace("_", " ")
        where = "on the rows as they are" if name == CLEAN else f"with {MISTAKES:.0%} of the responses swapped"
        said.append(f"{one.difference:+.3f} {where} ({low:+.3f} to {high:+.3f}: {verdict})")
    return (
        "Training SmolLM2-135M on the default selection instead of as many random rows changed the loss of held-out "
        f"rows by {' and by '.join(said)}, in nats a token with 95% intervals (`make proof`)."
    )


def draw(proofs: dict[str, Proof], picture: Path) -> None:
    """Write each arm's held-out loss against random, with its interval, as an SVG: the same for the same data."""
    mpl.rcParams["svg.hashsalt"] = "spice"
    figure, axes = plt.subplots(1, len(proofs), figsize=(8, 2.6), layout="constrained", sharex=True, squeeze=False)
    for panel, (name, proof) in zip(axes[0], proofs.items(), strict=True):
        compared = [one for one in reversed(proof.comparisons) if one.metric == "loss" and one.arm != "none"]
        smallest = compared[0].smallest_effect
        panel.axvspan(-smallest, smallest, color="#eeeeee")
        panel.axvline(0, color="#999999", linewidth=1)
        for place, one in enumerate(compared):
            color = "#b5452c" if one.arm == "selected" else "#555555"
            if one.interval is not None:
                panel.plot(one.interval, [place, place], color=color, linewidth=2)
            panel.plot([one.difference], [place], "o", color=color)
        panel.set_yticks(range(len(compared)), [one.arm for one in compared])
        panel.set(title=name, xlabel="held-out loss less random's, nats a token", ylim=(-0.6, len(compared) - 0.4))
        panel.spines[["top", "right"]].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None})


def main() -> None:
    """Write picture, table and sentence."""
    proofs = found()
    draw(proofs, PICTURE)
    shown = "\n".join(table(proofs))
    picture = "![Held-out loss of each arm less that of random rows, with 95% intervals](img/proof.svg)"
    is_made("docs/proof.md", "proof", f"{shown}\n\n{picture}\n", check=False, made_by=TARGET)
    is_made("README.md", "proof", f"{sentence(proofs)}\n", check=False, made_by=TARGET)


if __name__ == "__main__":
    main()
