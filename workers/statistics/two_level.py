"""The mean of scores over seeds and held-out items, and how sure it is: a bootstrap on two levels.

The scores of a proof are a table d[s, i]: seed s by held-out item i. Another run would have drawn other seeds, and
another held-out set other items, so both are drawn anew: S seeds with replacement and, independently, the sources of
the items with replacement, whole sources at a time (rows of one source resemble each other). A draw's mean is

    m* = sum_s sum_c w_s v_c d[s, c] / sum_s sum_c w_s v_c n_c,

where w and v count how often a seed and a source were drawn, d[s, c] is the sum over the source's items and n_c their
number. Owen (2007), "The pigeonhole bootstrap", shows that the variance of m* is never too small for such tables.

Five seeds are few, and the quantiles of the draws would be too narrow for them: of 4,000 samples of 5 normal numbers
with mean 0, 16% had a percentile interval without the 0, where 5% should. So the draws give the standard error, with
two corrections for small samples:

    V = Var(m*) + s^2 / S^2,         s^2 the variance (S - 1 in the denominator) of the seeds' means,
    nu = V^2 / ((s^2/S)^2 / (S - 1) + (V - s^2/S)^2 / (C - 1))        (Satterthwaite, 1946; C sources),

and the interval is m +- t(nu) sqrt(V), with Student's quantile: 5% of the same samples are then without the 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

DRAWS = 10_000
CONFIDENCE = 0.95
FEWEST_SOURCES = 10
"""With fewer, drawing whole sources would say more of their number than of the items: then each item is its own."""
BLOCK_ELEMENTS = 1 << 24


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and how sure it is.

    Attributes:
        mean: In the unit of the scores.
        standard_error: Of the mean, likewise.
        freedom: Degrees of freedom of the standard error.
        interval: From and to, 95%.
        p_value: Two-sided, of a mean of 0.
        seeds: Number S of seeds.
        lasting: The part of the standard error's square that further seeds do not make smaller: that of the items.
    """

    mean: float
    standard_error: float
    freedom: float
    interval: tuple[float, float]
    p_value: float
    seeds: int
    lasting: float


def clusters_of(sources: ArrayLike | None, items: int) -> NDArray[np.int64]:
    """The number of each item's source, shape (items,); its own where no source is known or there are few.

    Args:
        sources: The source of each item, of any type; None if the data names none.
        items: Number of items.
    """
    if sources is not None:
        _, numbers = np.unique(np.asarray(sources), return_inverse=True)
        if numbers.size and int(numbers.max()) + 1 >= FEWEST_SOURCES:
            return numbers.astype(np.int64)
    return np.arange(items, dtype=np.int64)


def estimate(scores: NDArray[np.float64], clusters: NDArray[np.int64], seed: int = 0) -> Estimate:
    """The mean of a table of scores.

    Args:
        scores: Shape (S, I), S at least 2: seeds by items, all finite.
        clusters: The number of each item's source from 0, shape (I,), as `clusters_of` gives it.
        seed: Of the draws.

    Raises:
        ValueError: There are fewer than two seeds, or no items.
    """
    return estimates(scores[None], clusters, seed)[0]


def estimates(tables: NDArray[np.float64], clusters: NDArray[np.int64], seed: int = 0) -> list[Estimate]:
    """The mean of each of several tables, all with the same draws: shape (N, S, I)."""
    _, seeds, items = tables.shape
    if seeds < 2 or items < 1:  # noqa: PLR2004 - a variance needs two
        raise ValueError(f"{seeds} seeds of {items} items have no interval: two seeds and one item are needed")
    sizes = np.bincount(clusters).astype(np.float64)
    sums = _by_cluster(tables, clusters, len(sizes))
    means = sums.sum(axis=(1, 2)) / (seeds * items)
    drawn = bootstrap_means(sums, sizes, seed).var(axis=1)
    by_seed = (sums.sum(axis=2) / items).var(axis=1, ddof=1)
    variances = drawn + by_seed / seeds**2
    return [
        _estimate(float(mean), float(variance), float(spread), seeds, _lasting(sums[number] / sizes))
        for number, (mean, variance, spread) in enumerate(zip(means, variances, by_seed / seeds, strict=True))
    ]


def bootstrap_means(sums: NDArray[np.float64], sizes: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """The means of `DRAWS` draws of seeds and sources.

    Args:
        sums: Sums over the items of each source, shape (N, S, C).
        sizes: Items of each source, shape (C,).
        seed: Of the draws, which are the same for every call with as many seeds and sources.

    Returns:
        Shape (N, DRAWS).
    """
    tables, seeds, clusters = sums.shape
    means = np.empty((tables, DRAWS))
    start = 0
    for of_seeds, of_clusters in _weights(seeds, clusters, seed):
        stop = start + len(of_seeds)
        totals = seeds * (of_clusters @ sizes)
        for number in range(tables):
            means[number, start:stop] = ((of_seeds @ sums[number]) * of_clusters).sum(axis=1) / totals
        start = stop
    return means


def half_widths(
    of_seeds: NDArray[np.float64], rest: NDArray[np.float64], seeds: NDArray[np.float64], clusters: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far intervals reach to either side, and the degrees of freedom of their standard errors.

    Args:
        of_seeds: The part of each variance that is the seeds', shape (k,).
        rest: The rest of it, shape (k,).
        seeds: How many seeds, shape (k,).
        clusters: How many sources.
    """
    parts = of_seeds**2 / (seeds - 1) + rest**2 / max(clusters - 1, 1)
    freedom = np.divide((of_seeds + rest) ** 2, parts, out=seeds - 1.0, where=parts > 0)
    widths: NDArray[np.float64] = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(of_seeds + rest)
    return widths, freedom


def _estimate(mean: float, variance: float, of_seeds: float, seeds: int, lasting: tuple[float, int]) -> Estimate:
    rest = max(variance - of_seeds, 0.0)
    widths, freedoms = half_widths(np.array([of_seeds]), np.array([rest]), np.array([float(seeds)]), lasting[1])
    half, freedom, error = float(widths[0]), float(freedoms[0]), float(np.sqrt(variance))
    surely = 1.0 if mean == 0 else 0.0
    p_value = float(2 * stats.t.sf(abs(mean) / error, freedom)) if error > 0 else surely
    return Estimate(mean, error, freedom, (mean - half, mean + half), p_value, seeds, min(lasting[0], variance))


def _lasting(table: NDArray[np.float64]) -> tuple[float, int]:
    """The variance of the mean that is the sources' own (two-way analysis of variance), and the number of sources.

    With the sources' mean square MS_c and the residual one MS_e over S seeds and C sources it is
    max(0, (MS_c - MS_e) / S) / C.
    """
    seeds, clusters = table.shape
    if clusters < 2:  # noqa: PLR2004 - which has no spread
        return 0.0, clusters
    by_cluster = table.mean(axis=0)
    residual = table - by_cluster - table.mean(axis=1, keepdims=True) + table.mean()
    noise = float((residual**2).sum()) / ((seeds - 1) * (clusters - 1))
    return max(0.0, float(by_cluster.var(ddof=1)) - noise / seeds) / clusters, clusters


def _by_cluster(tables: NDArray[np.float64], clusters: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    if count == tables.shape[2] and np.array_equal(clusters, np.arange(count)):
        return tables
    order = np.argsort(clusters, kind="stable")
    starts = np.searchsorted(clusters[order], np.arange(count))
    summed: NDArray[np.float64] = np.add.reduceat(tables[:, :, order], starts, axis=2)
    return summed


@lru_cache(maxsize=2)
def _small_weights(seeds: int, clusters: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return _drawn(np.random.default_rng([seed, seeds, clusters]), DRAWS, seeds, clusters)


def _weights(seeds: int, clusters: int, seed: int) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """How often each seed and each source is in a draw, in blocks of draws: shapes (b, S) and (b, C)."""
    if clusters * DRAWS <= BLOCK_ELEMENTS:
        yield _small_weights(seeds, clusters, seed)
        return
    random = np.random.default_rng([seed, seeds, clusters])
    block = max(1, BLOCK_ELEMENTS // clusters)
    for start in range(0, DRAWS, block):
        yield _drawn(random, min(block, DRAWS - start), seeds, clusters)


def _drawn(
    random: np.random.Generator, draws: int, seeds: int, clusters: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return _counted(random, draws, seeds), _counted(random, draws, clusters)


def _counted(random: np.random.Generator, draws: int, among: int) -> NDArray[np.float64]:
    """Counts of `among` draws with replacement out of `among`, shape (draws, among)."""
    places = random.integers(0, among, size=(draws, among)) + among * np.arange(draws)[:, None]
    return np.bincount(places.ravel(), minlength=draws * among).reshape(draws, among).astype(np.float64)
