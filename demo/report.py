"""What a finished job found, for a person at a terminal."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import plotext  # type: ignore[import-untyped]
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

HEAD_CHARS = 70
SHOWN_PICKS = 12
PLOT_COLUMNS = 78
PLOT_LINES = 18
TICKS = 8
BAR_CHARS = 30


def print_picks(console: Console, rows: list[dict[str, str]], subset: dict[str, Any]) -> None:
    """The first picks in the order in which they were picked, each with its row's head and its gain."""
    picks = list(zip(subset["indices"], subset["marginal_gains"], strict=True))
    shown = picks[:SHOWN_PICKS]
    console.print(f"[italic]The first {len(shown)} of {len(picks)} picks[/italic]")
    width = max(len(rows[index]["source"]) for index, _ in shown)
    console.print(f"[bold]   row   gain  {'source':<{width}}  begins with[/bold]")
    for index, gain in shown:
        row = rows[index]
        line = f"{index:>6}  {gain:>5.2f}  {row['source']:<{width}}  {head(row['prompt'])}"
        console.print(line, markup=False, highlight=False)


def head(text: str) -> str:
    """The text's first 70 characters, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= HEAD_CHARS else line[: HEAD_CHARS - 1] + "…"


def print_sources(console: Console, rows: list[dict[str, str]], subset: dict[str, Any]) -> None:
    """How much of each source was picked."""
    everything = Counter(row["source"] for row in rows)
    picked = Counter(rows[index]["source"] for index in subset["indices"])
    table = Table(title="Picked by source", title_justify="left", box=None)
    table.add_column("source")
    table.add_column("rows", justify="right")
    table.add_column("picked", justify="right")
    table.add_column("share", justify="right")
    for source, count in sorted(everything.items()):
        table.add_row(source, str(count), str(picked[source]), f"{picked[source] / count:.0%}")
    console.print(table)


def print_curve(console: Console, curve: dict[str, Any]) -> None:
    """The log-det curve of the selection and of its baselines, drawn with characters."""
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(PLOT_COLUMNS, PLOT_LINES)
    lines = [("spice", curve["rank"], curve["log_det"], "hd")]
    lines += [(name, line["rank"], line["log_det"], ".") for name, line in curve["baselines"].items()]
    for name, rank, log_det, marker in lines:
        figure.draw(figure.signal([0, *rank], [0.0, *log_det], marker=marker).lines().label(name))
    figure.title("Information of the first k picks: log det, in nats")
    figure.label("k")
    last = curve["selected"]
    ticks = list(range(0, last + 1, max(1, round(last / TICKS))))
    figure.ruler("x").ticks(ticks, [str(tick) for tick in ticks])
    console.print(figure.build().string(colorless=True), markup=False, highlight=False)


def print_conflicts(console: Console, conflicts: dict[str, Any]) -> None:
    """How far the picks pull against each other."""
    console.print(
        f"Conflict of a pick with the picks before it (0: none, 1: straight against them): "
        f"mean {conflicts['mean']:.3f}, largest {conflicts['max']:.3f}, "
        f"above 0 for {conflicts['positive_fraction']:.0%} of the picks."
    )
    edges, counts = conflicts["histogram"]["edges"], conflicts["histogram"]["counts"]
    digits = max(2, math.ceil(-math.log10(edges[1] - edges[0])))  # the bars reach as far as the largest conflict
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            bar = "█" * -(-BAR_CHARS * count // max(counts))
            console.print(f"  {low:.{digits}f} to {high:.{digits}f}  {count:>5}  {bar}", highlight=False)


def print_certificate(console: Console, result: dict[str, Any]) -> None:
    """What is proven about the subset, in plain words."""
    certificate, selected, log_det = result["certificate"], result["selected"], result["log_det"]
    console.print(
        f"The {selected} picks hold {log_det:.1f} nats. No {selected} of the {result['rows_usable']} rows hold more "
        f"than {certificate['optimum_upper_bound']:.1f}: the subset is proven to have at least "
        f"{certificate['value']:.1%} of what the best subset of its size has."
    )
    for name, baseline in result["baselines"].items():
        console.print(
            f"The baseline `{name}` of the same size holds {baseline['log_det']:.1f} nats; "
            f"{baseline['overlap']:.0%} of the rows in either subset are in both."
        )


def print_times(console: Console, result: dict[str, Any]) -> None:
    """Where the time went."""
    seconds = result["seconds"]
    stages = ", ".join(f"{stage} {took:.1f} s" for stage, took in seconds.items())
    console.print(f"Time: {stages}.")
    if result["sketches_reused"]:
        console.print("An earlier run had computed the gradients of these rows: only the selection was done.")
    else:
        rate = result["tokens"] / seconds["gradients"]
        console.print(f"Gradients of {result['tokens']} tokens, {rate:.0f} tokens a second.")
