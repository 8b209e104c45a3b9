"""Rows drawn by the mass that a transport to target rows leaves on them, as TSDS picks them.

Each target row spreads its mass 1/q over its nearest rows. Rows in a crowd of near-copies share what one row alone
would get: a row counts 1 / its kernel density. How far mass spreads is a trade of distance against diversity.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workers.selection.sketches import Sketches

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """The settings, with the defaults of the authors.

    Attributes:
        alpha: Weight of the distance, in (0, 1); the rest is the weight of diversity.
        scale: C, by which distances are divided.
        sigma: Width of the kernel, a distance; 0 counts every row once.
        neighbours: Rows that a target row may send mass to; a tenth of all rows at most, but at least 2.
        crowd: Nearest rows that a density is summed over, likewise.
    """

    alpha: float = 0.5
    scale: float = 5.0
    sigma: float = 0.75
    neighbours: int = 5000
    crowd: int = 1000


DEFAULTS = Transport()


def transport(
    embeddings: Any,  # noqa: ANN401 - numpy or torch
    targets: NDArray[np.floating],
    seed: int,
    settings: Transport = DEFAULTS,
) -> NDArray[np.int64]:
    """All rows in the order in which they are drawn.

    Args:
        embeddings: Of the rows, unit vectors, shape (n, h).
        targets: Of the target rows, likewise, shape (q, h).
        seed: Of the draw.
        settings: Of the transport.

    Returns:
        Rows with mass as they are drawn without replacement, then the others by their distance to the nearest target
        row; shape (n,), int64.
    """
    rows = Sketches(embeddings)
    distances = _distances(rows, targets)
    places, near = _nearest(distances, settings.neighbours)
    there, position = np.unique(places, return_inverse=True)
    density = kernel_density(
        rows.gather(torch.from_numpy(there), torch.float64).cpu().numpy(),
        settings.sigma,
        _at_most_a_tenth(settings.crowd, rows.n),
    )
    mass = masses(near, places, density[position.reshape(places.shape)], rows.n, settings)
    drawn = _drawn(mass, seed)
    others = np.flatnonzero(mass == 0)
    by_distance = others[np.argsort(distances[others].min(axis=1), kind="stable")]
    return np.concatenate([drawn, by_distance])


def kernel_density(embeddings: NDArray[np.float64], sigma: float, crowd: int) -> NDArray[np.float64]:
    """Sum of max(0, 1 - d^2 / sigma^2) over the nearest rows of each row, itself included; shape (n,).

    Args:
        embeddings: Shape (n, h).
        sigma: Width of the kernel; 0: every density is 1.
        crowd: Nearest rows that count.
    """
    if sigma == 0:
        return np.ones(len(embeddings))
    rows, found = Sketches(embeddings), np.empty(len(embeddings))
    every = rows.gather(torch.arange(rows.n), torch.float64)
    squares = every.square().sum(dim=1)
    for where, tile in rows.tiles(rows=max(1, (1 << 23) // rows.n)):
        between = (tile.square().sum(dim=1, keepdim=True) - 2 * tile @ every.T + squares).clamp_min_(0.0)
        kernel = (1.0 - between / sigma**2).clamp_min_(0.0)
        found[where] = kernel.topk(min(crowd, rows.n), dim=1).values.sum(dim=1).cpu().numpy()
    return np.maximum(found, 1.0)  # a row is its own neighbour; rounding must not make that less


def masses(
    distances: NDArray[np.float64],
    places: NDArray[np.int64],
    density: NDArray[np.float64],
    count: int,
    settings: Transport = DEFAULTS,
) -> NDArray[np.float64]:
    """The mass of each row, summing to 1.

    Of all target rows the one whose next neighbour costs least mass takes it, until alpha / C times the cost of
    sending everything on to the neighbours after these would be (1 - alpha) q or more. Then each neighbour that was
    taken has 1 / (s density) of its target row's mass, s the count that was reached, and the next one has the rest.

    Args:
        distances: Of each target row to its nearest rows, ascending, shape (q, m), m >= 2.
        places: Their row numbers, shape (q, m).
        density: Their kernel densities, shape (q, m).
        count: Number n of rows.
        settings: Of the transport.
    """
    targets, neighbours = distances.shape
    share = 1.0 / density
    last, weighted, cost = [0] * targets, distances[:, 0] * share[:, 0], np.zeros(targets)
    queue = [(float(share[target, 0]), 0, target) for target in range(targets)]
    heapq.heapify(queue)
    reached = 0.0
    while queue:
        reached, at, target = heapq.heappop(queue)
        cost[target] = distances[target, at + 1] * reached - weighted[target]
        if settings.alpha / settings.scale * cost.sum() >= (1.0 - settings.alpha) * targets:
            break
        last[target] = at
        if at < neighbours - 2:
            heapq.heappush(queue, (reached + float(share[target, at + 1]), at + 1, target))
            weighted[target] += distances[target, at + 1] * share[target, at + 1]
    found = np.zeros(count)
    for target, at in enumerate(last):
        given = share[target, : at + 1] / (reached * targets)
        np.add.at(found, places[target, : at + 1], given)
        found[places[target, at + 1]] += max(1.0 / targets - given.sum(), 0.0)
    return found


def _distances(rows: Sketches, targets: NDArray[np.floating]) -> NDArray[np.float64]:
    """Euclidean distance of each row to each target row, shape (n, q)."""
    others = torch.from_numpy(targets.astype(np.float64)).to(rows.device)
    found = np.empty((rows.n, len(targets)))
    for where, tile in rows.tiles(torch.float64):
        products = tile @ others.T
        between = tile.square().sum(dim=1, keepdim=True) - 2 * products + others.square().sum(dim=1)
        found[where] = between.clamp_min_(0.0).sqrt_().cpu().numpy()
    return found


def _nearest(distances: NDArray[np.float64], most: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Row numbers and distances of each target row's nearest rows, ascending, both of shape (q, m)."""
    count = min(len(distances), _at_most_a_tenth(most, len(distances)))
    order = np.argsort(distances, axis=0, kind="stable")[:count].T
    if count == 1:  # one row alone: it is also what comes after itself
        order = np.repeat(order, 2, axis=1)
    return order, np.take_along_axis(distances.T, order, axis=1)


def _at_most_a_tenth(wanted: int, rows: int) -> int:
    return max(2, min(wanted, rows // 10))


def _drawn(mass: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """The rows with mass in the order of a draw without replacement (Efraimidis and Spirakis, 2006)."""
    there = np.flatnonzero(mass > 0)
    keys = np.log(np.random.default_rng(seed).random(len(there))) / mass[there]
    return there[np.argsort(-keys, kind="stable")]
