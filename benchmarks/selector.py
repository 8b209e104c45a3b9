"""The selector against its baselines: `python -m benchmarks.selector`."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import ThreadpoolController

from app.core.contracts.selection_request import REPRESENTATIVE
from benchmarks.plain_greedy import plain_greedy
from benchmarks.published_loop import published_loop
from benchmarks.row import BenchRow
from benchmarks.text_gradients import described, text_gradients
from workers.selection import Constraints, SelectionConfig, Sources, merge, partition, select, select_part, settle
from workers.stages.objective import turned
from workers.stages.purposes import own_metric

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor


def fastest(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of some calls: the least disturbed one."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def gaussian(n: int, p: int) -> Tensor:
    return torch.randn(n, p, generator=torch.Generator().manual_seed(0))


def against_published_loop(*, quick: bool) -> list[BenchRow]:
    n, d, k = (128, 4096, 32) if quick else (512, 4096, 128)
    gradients = gaussian(n, d)
    config = SelectionConfig(budget=k, fisher="reference")
    selection = select(gradients, config)
    start = time.perf_counter()
    same = published_loop(gradients, k, selection.alpha, 0.1) == selection.indices.tolist()
    loop = time.perf_counter() - start
    kept = fastest(lambda: published_loop(gradients, k, selection.alpha, 0.1, kept=True), 1)
    whole = fastest(lambda: select(gradients, config), 3)
    ours = f"our whole call, certificate and all, {whole:.3f} s; n={n} d={d} k={k}, same score, "
    ours += "same indices" if same else "OTHER indices"
    each = f"per-candidate loop, the score's sums over the picks computed for each as the formula reads, {loop:.2f} s"
    return [
        BenchRow("selector/vs_published_loop", loop / whole, "x", 100.0, f"{each}; {ours}"),
        BenchRow(
            "selector/vs_published_loop_kept_sums",
            kept / whole,
            "x",
            None,
            f"the same loop with both sums kept from candidate to candidate, {kept:.2f} s; {ours}",
        ),
    ]


def against_plain(
    kind: str, sketches: Tensor, k: int, targets: tuple[float, float | None], what: str, *, quick: bool
) -> list[BenchRow]:
    """Two rows: against matrix-vector products, and against both of a pick fused into one pass."""
    target, fused_target = targets
    n, p = sketches.shape
    config = SelectionConfig(budget=k)
    times = 1 if quick else 2
    lazy = fastest(lambda: select(sketches, config), times + 1)
    fused = fastest(lambda: plain_greedy(sketches, k, 0.1), times)
    unfused = fastest(lambda: plain_greedy(sketches, k, 0.1, fused=False), times)
    picks, selection = plain_greedy(sketches, k, 0.1), select(sketches, config)
    rows = math.sqrt(selection.alpha) * sketches[picks].double()
    reached = float(torch.linalg.slogdet(torch.eye(p, dtype=torch.float64) + rows.T @ rows)[1])
    agreement = abs(selection.log_det[-1] - reached) / reached
    where = f"n={n} p={p} k={k} lambda=0.1 float32, {what}; log-det agrees to {agreement:.0e}"
    ours = f"whole call, certificate and all, {lazy:.2f} s; {where}"
    plain = "plain rank-one-update greedy, a matrix-vector product a pick for the gains and one for the conflicts"
    tuned = "plain rank-one-update greedy, both products of a pick fused into one pass at the speed of memory"
    return [
        BenchRow(f"selector/lazy_vs_plain_{kind}", unfused / lazy, "x", target, f"{plain}, {unfused:.2f} s; {ours}"),
        BenchRow(
            f"selector/lazy_vs_fused_plain_{kind}", fused / lazy, "x", fused_target, f"{tuned}, {fused:.2f} s; {ours}"
        ),
    ]


def lazy_against_plain(*, quick: bool) -> list[BenchRow]:
    n, p, k = (4000, 256, 400) if quick else (20000, 512, 2000)
    real = text_gradients(n, p)
    return [
        *against_plain("gaussian", gaussian(n, p), k, (6.0, 2.0), "Gaussian sketches", quick=quick),
        *against_plain("real", real, len(real) // 10, (4.0, None), described(real), quick=quick),
    ]


def against_submodlib(n: int, p: int, k: int, suffix: str) -> BenchRow:
    from submodlib import LogDeterminantFunction  # noqa: PLC0415 - an optional peer

    features = gaussian(n, p).numpy()

    def peer() -> object:
        function = LogDeterminantFunction(n=n, mode="dense", lambdaVal=1.0, data=features, metric="dot")
        return function.maximize(budget=k, optimizer="LazyGreedy", show_progress=False)

    config = SelectionConfig(budget=k, method="fisher", alpha=1.0)
    theirs, ours = fastest(peer, 1), fastest(lambda: select(features, config), 3)
    where = f"n={n} p={p} k={k}, features to indices"
    baseline = f"submodlib-py LogDeterminant, LazyGreedy, {theirs:.2f} s; ours {ours:.3f} s; {where}"
    return BenchRow(f"selector/vs_submodlib{suffix}", theirs / ours, "x", 50.0, baseline)


def against_apricot(n: int, p: int, k: int, suffix: str, target: float | None) -> BenchRow:
    from apricot import FacilityLocationSelection  # noqa: PLC0415 - an optional peer

    features = gaussian(n, p).numpy()

    def peer() -> object:
        return FacilityLocationSelection(k, metric="euclidean", optimizer="lazy").fit(features)

    peer()  # compiles; the second call is the one to time
    config = SelectionConfig(budget=k, method="fisher")
    theirs, ours = fastest(peer, 1), fastest(lambda: select(features, config), 3)
    where = f"n={n} p={p} k={k}, features to indices"
    what = "apricot-select facility location (another objective), lazy, already compiled"
    baseline = f"{what}, {theirs:.2f} s; ours {ours:.3f} s; {where}"
    return BenchRow(f"selector/vs_apricot{suffix}", theirs / ours, "x", target, baseline)


def against_packages(*, quick: bool) -> list[BenchRow]:
    # At n = 10,000 both take a quarter of a second, of which the gradients take a thousand times as much.
    rows = [against_submodlib(2000, 128, 200, ""), against_apricot(2000, 128, 200, "", 30.0)]
    if quick:
        return rows
    return [
        *rows,
        against_submodlib(10000, 128, 1000, "_n10000"),
        against_apricot(10000, 128, 1000, "_n10000", 10.0),
        # Their time goes into n x n similarities whatever k is, ours into the picks: with few picks, too.
        against_apricot(10000, 128, 100, "_n10000_k100", None),
    ]


def numpy_greedy(sketches: NDArray[np.float32], k: int, alpha: float, penalty: float) -> list[int]:
    """The plain greedy as a user would write it: a pass over all rows a pick, by rank-one updates in float32."""
    residuals, inverse, total = (sketches**2).sum(axis=1), np.eye(sketches.shape[1], dtype=np.float32), 0 * sketches[0]
    norms, along, picks = np.sqrt(residuals), np.zeros(len(sketches), dtype=np.float32), []
    for _ in range(k):
        scores = np.log1p(alpha * residuals)
        scores -= penalty * np.clip(-along / (norms * max(np.sqrt(total @ total), 1e-30)), 0, 1)
        scores[picks] = -np.inf
        picks.append(int(scores.argmax()))
        row = sketches[picks[-1]]
        direction = inverse @ row * np.sqrt(alpha / (1 + alpha * row @ inverse @ row))
        inverse -= np.outer(direction, direction)
        total += row
        products = sketches @ np.stack([direction, row], axis=1)
        residuals -= products[:, 0] ** 2
        along += products[:, 1]
    return picks


def small_call(*, quick: bool) -> BenchRow:
    """A warm call on few rows, in both settings of alpha, against a few lines of numpy with all threads."""
    n, p, k = (1500, 256, 150) if quick else (6000, 256, 600)
    features, ratios, seconds = gaussian(n, p).numpy(), [], []
    for name, alpha in (("auto", None), ("1", 1.0)):
        config = SelectionConfig(budget=k, alpha="auto" if alpha is None else alpha)
        number = alpha or 1.0 / float(np.median((features**2).sum(axis=1)))
        select(features, config)  # warm
        theirs, ours = math.inf, math.inf
        for _ in range(2 if quick else 5):  # in turn, so that other work on the machine disturbs both alike
            ours = min(ours, fastest(lambda config=config: select(features, config), 1))
            with ThreadpoolController().limit(limits=torch.get_num_threads()):
                theirs = min(theirs, fastest(lambda number=number: numpy_greedy(features, k, number, 0.1), 1))
        ratios.append(theirs / ours)
        seconds.append(f"alpha {name}: numpy {theirs:.3f} s, ours {ours:.3f} s")
    what = (
        f"the smaller ratio of two settings, whole call, certificate and all; {'; '.join(seconds)}; n={n} p={p} k={k}"
    )
    return BenchRow("selector/small_call", min(ratios), "x", 1.0, f"plain greedy in a dozen lines of numpy; {what}")


def constrained(*, quick: bool) -> BenchRow:
    """What constraints cost in time: each against the unconstrained greedy of as many rows."""
    n, p, k = (4000, 256, 400) if quick else (20000, 512, 1000)
    sketches, rng = gaussian(n, p), np.random.default_rng(0)
    tokens = np.maximum(8, rng.lognormal(5.0, 0.6, n)).astype(np.int64)
    least, most = np.array([k // 5, 0, 0, 0]), np.array([k, k // 5, k // 5, k])
    sources = Sources(("a", "b", "c", "d"), rng.integers(0, 4, n), least, most)
    budget = int(tokens.mean() * k * 0.6)
    kinds = {
        "sources": (k, Constraints(sources=sources)),
        "near-duplicates": (k, Constraints(near_cosine=0.98)),
        "tokens": (None, Constraints(tokens=tokens, token_budget=budget)),
        "all": (
            None,
            Constraints(tokens=tokens, token_budget=budget, sources=sources, near_cosine=0.98, include=np.arange(20)),
        ),
    }
    ratios = {}
    for name, (rows, constraints) in kinds.items():
        picked = len(select(sketches, SelectionConfig(budget=rows), constraints).indices)
        bound, free = math.inf, math.inf
        for _ in range(1 if quick else 2):  # in turn, so that other work on the machine disturbs both alike
            config, alone = SelectionConfig(budget=rows), SelectionConfig(budget=picked)
            bound = min(bound, fastest(lambda c=config, k=constraints: select(sketches, c, k), 1))
            free = min(free, fastest(lambda c=alone: select(sketches, c), 1))
        ratios[name] = bound / free
    by_constraint = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    baseline = f"the unconstrained greedy of as many rows, the slowest of: {by_constraint}; n={n} p={p}"
    return BenchRow("selector/constrained", max(ratios.values()), "x", 1.5, baseline, smaller_is_better=True)


def decaying(n: int, p: int) -> NDArray[np.float32]:
    """Rows of length one whose directions decay like the root of 1/j, as those of gradients do."""
    values = gaussian(n, p).numpy() / np.sqrt(np.arange(1, p + 1, dtype=np.float32))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values


def representative(n: int, p: int, k: int) -> BenchRow:
    """What the candidates' own metric costs, in the processor's time and not the clock's."""
    values = decaying(n, p)
    config = SelectionConfig(budget=k)
    select(values[:1000], SelectionConfig(budget=10))  # warm
    start = time.process_time()
    plain = select(values, config)
    alone = time.process_time() - start
    start = time.process_time()
    own = own_metric(values, REPRESENTATIVE)
    made = time.process_time() - start
    moved = turned(values, own)
    after = time.process_time() - start
    found = select(moved, config)
    whole = time.process_time() - start
    return BenchRow(
        f"selector/representative_n{n}",
        whole - alone,
        "s of processor",
        None,
        f"selecting with representative {REPRESENTATIVE} {whole:.1f} s of the processor, without it {alone:.1f} s: the "
        f"metric of 1,024 rows {made:.1f} s, its product with all rows {after - made:.1f} s, the greedy under it "
        f"{whole - after:.1f} s; certificates {found.certificate:.3f} and {plain.certificate:.3f}; n={n} p={p} k={k}, "
        "Gaussian rows with a decaying spectrum",
        smaller_is_better=True,
    )


def representative_rows(*, quick: bool) -> list[BenchRow]:
    """At the request's default p, for a hundredth of the rows."""
    if quick:
        return [representative(2000, 256, 20)]
    return [representative(20_000, 2048, 200), representative(100_000, 2048, 1000)]


def randgreedi(*, quick: bool) -> BenchRow:
    """What is lost when the pool is cut into parts, and what one of as many processes has to do."""
    n, p, k, parts = (4000, 256, 100, 8) if quick else (20000, 512, 500, 8)
    sketches = gaussian(n, p)
    start = time.perf_counter()
    exact = select(sketches, SelectionConfig(budget=k))
    alone = time.perf_counter() - start
    config = settle(sketches, SelectionConfig(budget=k))
    picks, seconds = [], []
    for rows in partition(n, parts, config.seed):
        start = time.perf_counter()
        picks.append(select_part(sketches, rows, config))
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    merged = merge(sketches, picks, config)
    last = time.perf_counter() - start
    return BenchRow(
        "selector/randgreedi_vs_exact",
        float(merged.log_det[-1] / exact.log_det[-1]),
        "of F",
        0.95,
        f"log-det of the exact greedy over all rows, {exact.log_det[-1]:.1f} nats in {alone:.2f} s; {parts} random "
        f"parts reach {merged.log_det[-1]:.1f}, the slowest part {max(seconds):.2f} s, the merge with its certificate "
        f"against all rows {last:.2f} s; certificates {exact.certificate:.3f} and {merged.certificate:.3f}; "
        f"n={n} p={p} k={k}",
    )


def growth(*, quick: bool) -> BenchRow:
    sizes = [1000, 2000, 4000] if quick else [2000, 4000, 8000, 16000, 32000]
    times = [fastest(lambda n=n: select(gaussian(n, 256), SelectionConfig(budget=n // 20)), 2) for n in sizes]
    exponent = float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
    measured = ", ".join(f"{n}: {t:.2f} s" for n, t in zip(sizes, times, strict=True))
    return BenchRow("selector/growth_exponent", exponent, "", None, f"time ~ n^value at k = n/20, p=256; {measured}")


_PEAK = r"""
import re, sys, numpy as np
from workers.selection import SelectionConfig, select
def peak():  # of this program alone; getrusage would count the one that started it
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
path, budget = sys.argv[1], int(sys.argv[2])
rows = np.load(path, mmap_mode="r")
select(rows[:1000], SelectionConfig(budget=10))
before = peak()
select(rows, SelectionConfig(budget=budget))
print(peak() - before)
"""


def peak_memory(*, quick: bool) -> BenchRow:
    """Memory beyond the interpreter and its libraries, the mapped input's resident pages included."""
    n, p, k = (20000, 512, 500) if quick else (200000, 1024, 1000)
    path = Path("/tmp") / f"selector_peak_{n}_{p}.npy"  # noqa: S108 - a scratch file of this benchmark
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, p))
    for start in range(0, n, 10000):
        rows[start : start + 10000] = np.random.default_rng(start).standard_normal((10000, p), dtype=np.float32)
    rows.flush()
    del rows
    try:
        command = [sys.executable, "-c", _PEAK, str(path), str(k)]
        taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024
    finally:
        path.unlink()
    size = n * p * 2
    return BenchRow(
        "selector/peak_memory",
        taken / size,
        "x input",
        None,
        f"peak resident growth {taken / 2**20:.0f} MiB over a memory-mapped float16 input of {size / 2**20:.0f} MiB"
        f" (its pages count as they are read); an upcast copy alone would be 2; n={n} p={p} k={k}",
    )


def rows(quick: bool = False) -> list[BenchRow]:
    """Every figure of the selector, measured now.

    Args:
        quick: Small sizes, for a look; the targets are set for the full ones.
    """
    return [
        *against_published_loop(quick=quick),
        *lazy_against_plain(quick=quick),
        *against_packages(quick=quick),
        small_call(quick=quick),
        constrained(quick=quick),
        *representative_rows(quick=quick),
        randgreedi(quick=quick),
        growth(quick=quick),
        peak_memory(quick=quick),
    ]


def main() -> None:
    found = rows(quick="--quick" in sys.argv)
    table = Table("name", "value", "target", "holds", "baseline", title=f"{found[0].machine}")
    for row in found:
        target = "" if row.target is None else f"{row.target:g}"
        table.add_row(row.name, f"{row.value:.3g} {row.unit}", target, "yes" if row.holds else "NO", row.baseline)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
