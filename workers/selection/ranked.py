"""Orders by one figure of each row, as IFD, perplexity, length and the ratings of SelectIT have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Weight of the spread of a row's ratings over the prompts, as SelectIT's authors set it.
SPREAD = 0.2


def by_score(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """The rows with a known score, the largest first; ties by row number.

    Args:
        scores: Shape (n,); NaN where a row has none.
    """
    order = np.argsort(-scores, kind="stable")
    found: NDArray[np.int64] = order[~np.isnan(scores[order])]
    return found


def helped_by_prompt(ifd: NDArray[np.float64]) -> NDArray[np.int64]:
    """The rows whose IFD is known and at most 1, the largest first: prompts that help, but only just.

    Args:
        ifd: Loss of the response with its prompt over the loss without, shape (n,); NaN where it is not known.
    """
    return by_score(np.where(ifd <= 1.0, ifd, np.nan))


def middle_third(losses: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """The middle third of the rows by loss in random order, then the others in random order.

    Args:
        losses: Shape (n,).
        seed: Of both orders.
    """
    order, third = np.argsort(losses, kind="stable"), len(losses) // 3
    middle, random = order[third : len(losses) - third], np.random.default_rng(seed)
    outside = np.concatenate([order[:third], order[len(losses) - third :]])
    return np.concatenate([random.permutation(np.sort(part)) for part in (middle, outside)]).astype(np.int64)


def ratings(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """What a model thinks of each row, as SelectIT's paper has it.

    Of one prompt: p over the k digits sums to 1, v = softmax(p), and the rating is the likeliest digit times the mean
    lead of it over the other k - 1. Of a row: the mean over the prompts / (1 + 0.2 their standard deviation, with n).

    Args:
        probabilities: Of each digit as the next token, shape (n, prompts, k); need not sum to 1.

    Returns:
        Shape (n,); NaN where a probability is not finite or all are 0.
    """
    p = probabilities.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = p / p.sum(axis=-1, keepdims=True)
    v = np.exp(p)
    v /= v.sum(axis=-1, keepdims=True)
    lead = (v.max(axis=-1, keepdims=True) - v).sum(axis=-1) / (p.shape[-1] - 1)
    of_prompts = (1 + p.argmax(axis=-1)) * lead
    found: NDArray[np.float64] = of_prompts.mean(axis=1) / (1.0 + SPREAD * of_prompts.std(axis=1))
    return found


def influences(
    cosines: NDArray[np.floating], rates: NDArray[np.float64], groups: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How much training on each row is expected to help the target rows, as LESS scores it.

    The cosines of a row with the target rows are summed over the checkpoints, each weighted with its learning rate's
    share, then averaged within each group of target rows; the largest average is the row's score.

    Args:
        cosines: Of each row with each target row at each checkpoint, shape (checkpoints, n, q).
        rates: Mean learning rate up to each checkpoint from the one before it, shape (checkpoints,).
        groups: Group of each target row, shape (q,), 0 to g - 1, none empty.

    Returns:
        Shape (n,).
    """
    summed = np.tensordot(rates / rates.sum(), cosines.astype(np.float64), axes=1)
    of_groups = [summed[:, groups == group].mean(axis=1) for group in range(int(groups.max()) + 1)]
    best: NDArray[np.float64] = np.max(of_groups, axis=0)
    return best
