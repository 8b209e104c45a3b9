"""The specification of the greedy, as slow and as direct as can be."""

import numpy as np


def assert_greedy(sketches: np.ndarray, picks: np.ndarray, alpha: float, penalty: float) -> None:
    """Recompute every score from the definitions in float64 before every pick, and see that the pick is the best.

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
        assert scores[pick] >= scores[left].max() - 1e-9
        twins = left[(rows[left] == rows[pick]).all(axis=1)]
        assert pick == twins[0]
