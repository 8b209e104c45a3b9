"""The square root of the information: against its definition, however the picks arrive."""

import numpy as np
import pytest
import torch

from workers.selection.whitening import BLOCK, Whitener

ALPHA = 0.7


def rows_of(count: int, p: int, *, wild: bool) -> torch.Tensor:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((count, p)) * (10 ** rng.uniform(-4, 4, (count, 1)) if wild else 1.0)
    rows[count // 2] = rows[0]
    return torch.from_numpy(rows)


@pytest.mark.parametrize("block", [1, 7, BLOCK])
@pytest.mark.parametrize(("count", "p"), [(200, 12), (150, 300), (5, 40)])
def test_whitening_is_that_of_the_information_matrix(count: int, p: int, block: int) -> None:
    picks, others = rows_of(count, p, wild=False), rows_of(9, p, wild=False)
    whitener = Whitener(p, ALPHA, count, torch.device("cpu"))
    followed, falls, gains = others.clone(), torch.zeros(9, dtype=torch.float64), 0.0
    for part in torch.split(picks, block):
        absorbed = whitener.absorb(part)
        gains += float(torch.log1p(ALPHA * absorbed.residuals).sum())
        falls += (others @ absorbed.directions.T).square().sum(dim=1)
        for left, update in absorbed.steps:
            followed -= followed @ left.T @ update.T @ left
    information = torch.eye(p, dtype=torch.float64) + ALPHA * picks.T @ picks
    truth = (others * torch.linalg.solve(information, others.T).T).sum(dim=1)
    white = whitener.whiten(others)
    torch.testing.assert_close(white.square().sum(dim=1), truth, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(others.square().sum(dim=1) - falls, truth, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(followed, white, rtol=1e-9, atol=1e-10)
    assert gains == pytest.approx(float(torch.linalg.slogdet(information)[1]), rel=1e-12)


def test_a_block_gives_what_its_picks_give_one_by_one_also_where_norms_are_wild() -> None:
    picks = rows_of(BLOCK, 10, wild=True)
    together, alone = (Whitener(10, ALPHA, BLOCK, torch.device("cpu")) for _ in range(2))
    residuals = together.absorb(picks).residuals
    one_by_one = torch.cat([alone.absorb(row).residuals for row in torch.split(picks, 1)])
    torch.testing.assert_close(torch.log1p(ALPHA * residuals), torch.log1p(ALPHA * one_by_one), rtol=1e-7, atol=1e-12)
