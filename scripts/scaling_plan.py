"""Writes the worked plan of docs/scaling.md out of benchmarks/results.json (`make docs-measured`).

Every figure of the plan is arithmetic on the few of `Rates`. --check only says if the page is stale.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, replace
from typing import Any

from scripts.measured_part import is_made, results

GRADIENTS, SELECTION = "`gradients/vs_training_step_smollm2`", "`selector/lazy_vs_plain_gaussian`"
READING = 309_000
"""Tokens a second, by `python -m benchmarks.reading`, 2 cores: 20,000 rows of 116 tokens in 7.5 s."""
MACHINES = 100
SHARD_ROWS = 1024
"""The default of SPICE_SHARD_ROWS."""
PLANS = (
    (100_000, 10_000, 2048),
    (1_000_000, 100_000, 1024),
    (10_000_000, 100_000, 1024),
    (10_000_000, 1_000_000, 1024),
    (100_000_000, 1_000_000, 1024),
)
"""N samples, k picks, p numbers a sketch."""
PARTITIONED = (
    (1_000_000, 10_000, 1024),
    (10_000_000, 100_000, 1024),
    (10_000_000, 10_000, 1024),
    (100_000_000, 1_000_000, 1024),
)
GPU, GPU_PEAK, GPU_SHARE = "H200", 67e12, 0.1
"""Operations a second in float32 that its maker states, and the share of them that is taken for granted."""


@dataclass(frozen=True)
class Rates:
    """What the plan is computed from.

    Attributes:
        gradients: Tokens a second of one machine.
        reading: Tokens a second of one machine.
        selecting: Operations a second of one machine, 2 n k p of them to a selection.
        tokens: Of a row.
    """

    gradients: float
    reading: float
    selecting: float
    tokens: float

    def gradients_s(self, n: int, machines: int = 1) -> float:
        """Seconds of all gradients."""
        return n * self.tokens / (self.gradients * machines)

    def reading_s(self, n: int, machines: int = 1) -> float:
        """Seconds of reading in ranges."""
        return n * self.tokens / (self.reading * machines)

    def selecting_s(self, n: float, k: int, p: int) -> float:
        """Seconds of an exact selection."""
        return 2 * n * k * p / self.selecting


def rates(results: list[dict[str, Any]]) -> Rates:
    """Out of what the benchmark has written."""
    baselines = {row["name"]: row["baseline"] for row in results}
    step, lazy = baselines[GRADIENTS.strip("`")], baselines[SELECTION.strip("`")]
    rows, tokens = _numbers(r"(\d+) rows, (\d+) tokens", step)
    (gradients,) = _numbers(r"ours (\d+) tokens/s", step)
    seconds, n, p, k = _numbers(r"whole call, certificate and all, ([\d.]+) s; n=(\d+) p=(\d+) k=(\d+)", lazy)
    # Two digits: the page shows what it counts with.
    return Rates(gradients, READING, float(f"{2 * n * k * p / seconds:.1e}"), round(tokens / rows))


def render(rate: Rates) -> str:
    """The plan: what it counts with, and what comes of it."""
    n, k, p = PLANS[2]
    exact, parted = rate.selecting_s(n, k, p), _parted(rate, n, k, p)
    measured = f"{rate.selecting:.1e}".replace("e+", "e")
    plans = "\n".join(_plan(rate, *plan) for plan in PLANS)
    partitions = "\n".join(_partition(rate, *plan) for plan in PARTITIONED)
    gpu = replace(rate, selecting=GPU_PEAK * GPU_SHARE)
    estimates = "\n".join(_estimate(gpu, *plan) for plan in PARTITIONED)
    return f"""
| one machine of 2 cores | measured | |
|---|---|---|
| t | {rate.tokens:g} | tokens a row, in the benchmark of the gradients |
| G | {rate.gradients:,g} | tokens a second, gradients of SmolLM2-135M in float32, one worker, 2 threads ({GRADIENTS}) |
| R | {rate.reading:,g} | tokens a second, reading (`python -m benchmarks.reading`) |
| S | {measured} | operations a second, exact selection of 2 n k p operations ({SELECTION}) |

{_head("n", "k", "p", "read", "gradients", f"on {MACHINES} machines", "sketches", "select")}
{_row("", "", "", "n t / R", "n t / G", f"n t / ({MACHINES} G)", "4 n p bytes", "2 n k p / S")}
{plans}

So at {n:,} rows and {k:,} picks, with {MACHINES} such machines and one that selects:

- **Reading**: {_time(rate.reading_s(n, MACHINES))} before the first shard, each machine its ranges, once one worker has
  copied the dataset and taken its checksums.
- **Gradients** of {_rounded(n * rate.tokens / 1e9)} billion tokens: {math.ceil(n / SHARD_ROWS):,} shards of
  {SHARD_ROWS:,} rows, {_time(rate.gradients_s(n, MACHINES))}. A worker that dies loses
  {_time(rate.gradients_s(SHARD_ROWS))} of work at most.
- **Bytes**: {_size(4 * n * p)} of sketches in the artifact store and once more as a scratch file on the machine that
  selects; {_size(5 * n * rate.tokens)} of tokens on every machine, and a copy of the dataset on the one that plans;
  {_size(8 * k * p)} of the selector's own memory; {_size(48 * k)} of picks in Postgres.
- **Selecting**: {_time(exact)} exactly, on one machine; {_time(parted)} in {_parts(n, k)} parts, as below.
- **In all**: {_time(_whole(rate, n, exact))} with the exact selection,
  {_time(_whole(rate, n, parted))} with the partitioned one.

{_head("n", "k", "p", "m", "a part", "the merge", "both, on m machines", "exact, on one")}
{_row("", "", "", "sqrt(n/k)", "2 (n/m) k p / S", "2 m k k p / S", "", "2 n k p / S")}
{partitions}

**An estimate, not measured**: on an {GPU}, whose maker states {GPU_PEAK / 1e12:g}e12 operations a second in float32.
A tenth of that is taken for granted here.

{_head("n", "k", "p", "sketches of a part", "a part", "the merge", "both, on m GPUs")}
{estimates}

"""


def _head(*cells: str) -> str:
    return f"{_row(*cells)}\n{'|---' * len(cells)}|"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _plan(rate: Rates, n: int, k: int, p: int) -> str:
    return _row(
        *(f"{count:,}" for count in (n, k, p)),
        _time(rate.reading_s(n)),
        _time(rate.gradients_s(n)),
        _time(rate.gradients_s(n, MACHINES)),
        _size(4 * n * p),
        _time(rate.selecting_s(n, k, p)),
    )


def _partition(rate: Rates, n: int, k: int, p: int) -> str:
    m = _parts(n, k)
    return _row(
        *(f"{count:,}" for count in (n, k, p, m)),
        _time(rate.selecting_s(n / m, k, p)),
        _time(rate.selecting_s(m * k, k, p)),
        _time(_parted(rate, n, k, p)),
        _time(rate.selecting_s(n, k, p)),
    )


def _estimate(rate: Rates, n: int, k: int, p: int) -> str:
    m = _parts(n, k)
    return _row(
        *(f"{count:,}" for count in (n, k, p)),
        _size(4 * n * p / m),
        _time(rate.selecting_s(n / m, k, p)),
        _time(rate.selecting_s(m * k, k, p)),
        _time(_parted(rate, n, k, p)),
    )


def _parts(n: int, k: int) -> int:
    """The number of parts that costs least."""
    return round(math.sqrt(n / k))


def _parted(rate: Rates, n: int, k: int, p: int) -> float:
    m = _parts(n, k)
    return rate.selecting_s(n / m, k, p) + rate.selecting_s(m * k, k, p)


def _whole(rate: Rates, n: int, selecting_s: float) -> float:
    return rate.reading_s(n, MACHINES) + rate.gradients_s(n, MACHINES) + selecting_s


def _numbers(pattern: str, text: str) -> list[float]:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"benchmarks/results.json no longer says {pattern!r}, but: {text}")
    return [float(number) for number in found.groups()]


def _time(seconds: float) -> str:
    for unit, length, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 72)):
        if seconds < most * length:
            return f"{_rounded(seconds / length)} {unit}"
    return f"{_rounded(seconds / 86400)} days"


def _size(count: float) -> str:
    for unit, length in (("GB", 1e9), ("MB", 1e6)):
        if count >= 0.5 * length:
            return f"{_rounded(count / length)} {unit}"
    return f"{_rounded(count / 1e3)} kB"


def _rounded(value: float) -> str:
    """Two digits, in full."""
    return f"{float(f'{value:.1e}'):,g}"


def main(arguments: list[str]) -> int:
    """Write the page, or say that it is stale; the exit code."""
    return 0 if is_made("docs/scaling.md", "plan", render(rates(results())), check="--check" in arguments) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
