"""The specification of the greedy, as slow and as direct as can be."""

import numpy as np
from numpy.typing import NDArray


def assert_greedy(sketches: np.ndarray, picks: np.ndarray, alpha: float, penalty: float) -> None:
    """Recompute the best score from the definitions in float64 before every pick, and see that the pick ties with it.

    Among rows that are bit for bit the same, the pick has to be the first.
    """
    rows = sketches.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    for step, pick in enumerate(picks):
        before = picks[:step]
        information = np.eye(rows.shape[1]) + alpha * rows[before].T @ rows[before]
        gains = np.log1p(alpha * np.einsum("ij,ij->i", rows, np.linalg.solve(information, rows.T).T))
        total = rows[before].sum(axis=0)
        conflicts = np.zeros(len(rows))
        if np.linalg.norm(total) > 1e-9 * norms[before].sum():
            cosines = rows @ total / (np.maximum(norms, 1e-300) * np.linalg.norm(total))
            conflicts = np.clip(-cosines, 0, 1)
        scores = gains - penalty * conflicts
        left = np.setdiff1d(np.flatnonzero(norms > 0), before)
        assert pick in left
        width = 1e-6 * (np.log1p(alpha * norms**2) + penalty)
        assert (scores + width)[pick] >= (scores - width)[left].max() - 1e-9
        twins = left[(rows[left] == rows[pick]).all(axis=1)]
        assert pick == twins[0]


def naive_picks(sketches: np.ndarray, budget: int, alpha: float, penalty: float) -> NDArray[np.int64]:
    """The picks, with every score from the square root of the information in extended precision before every pick.

    Rows tie with the best within a millionth of their base gains and the largest penalty, and the rounding of a gain in
    float64, 8 epsilons of |z| in |W z|; the first of them is picked.
    """
    rows = sketches.astype(np.longdouble)
    norms = np.sqrt((rows**2).sum(axis=1))
    white, total, path = rows.copy(), np.zeros(rows.shape[1], dtype=np.longdouble), np.longdouble(0)
    closed = norms == 0
    width = 1e-6 * (np.log1p(alpha * norms**2) + penalty)
    picks: list[int] = []
    for _ in range(min(budget, int((~closed).sum()))):
        residuals = (white**2).sum(axis=1)
        gains = np.log1p(alpha * residuals)
        length = np.sqrt(total @ total)
        conflicts = np.zeros(len(rows), dtype=np.longdouble)
        if length > 1e-12 * path:
            conflicts = np.clip(-(rows @ total) / (np.where(norms > 0, norms, 1) * length), 0, 1)
        scores = gains - penalty * conflicts
        blur = 8 * np.finfo(np.float64).eps * norms
        rounding = alpha * blur * (2 * np.sqrt(residuals) + blur) / (1 + alpha * residuals)
        tie = width + rounding
        upper, lower = np.where(closed, -np.inf, scores + tie), np.where(closed, -np.inf, scores - tie)
        pick = int(np.argmax(upper >= lower.max()))
        picks.append(pick)
        closed[pick] = True
        total, path = total + rows[pick], path + norms[pick]
        # Potter: W <- (I - c v v^T) W with v = W z, c = alpha / (g (1 + g)), g^2 = 1 + alpha |v|^2
        v, g = white[pick].copy(), np.sqrt(1 + alpha * residuals[pick])
        white -= np.outer(white @ v, v) * (alpha / (g * (1 + g)))
    return np.array(picks, dtype=np.int64)
