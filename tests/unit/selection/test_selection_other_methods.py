"""Methods that people compare with, each held to values worked out by hand; the derivations are in the docstrings."""

from __future__ import annotations

import numpy as np
import pytest

from workers.selection import (
    Constraints,
    SelectionConfig,
    Transport,
    by_score,
    by_turns,
    facility_location,
    helped_by_prompt,
    influences,
    matching_pursuit,
    middle_third,
    nearest_picks,
    ratings,
    select_in_order,
    transport,
)
from workers.selection.transport import kernel_density, masses

NAN = float("nan")


def test_ranked_by_score_leaves_out_what_is_not_known() -> None:
    """The largest first; of two 0.7 the first row; the row without a score is in no place."""
    assert by_score(np.array([0.2, 0.7, NAN, 0.7, 0.9])).tolist() == [4, 1, 3, 0]


def test_ifd_takes_the_largest_that_is_not_above_one() -> None:
    """Of 0.5, 1.2, unknown, 1.0 and 0.9: 1.2 is dropped as its prompt does not help, 1.0 is not above 1."""
    assert helped_by_prompt(np.array([0.5, 1.2, NAN, 1.0, 0.9])).tolist() == [3, 4, 0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_perplexity_draws_from_the_middle_third_first(seed: int) -> None:
    """Losses 9 to 1 for rows 0 to 8: sorted they are rows 8, 7, ..., 0, and the middle third are rows 5, 4 and 3."""
    order = middle_third(np.arange(9, 0, -1, dtype=np.float64), seed)
    assert set(order[:3].tolist()) == {3, 4, 5}
    assert sorted(order.tolist()) == list(range(9))


def test_perplexity_draws_another_order_with_another_seed() -> None:
    """Of 30 rows ten are in the middle: two seeds agree on their order by chance once in ten factorial."""
    losses = np.linspace(1.0, 2.0, 30)
    assert middle_third(losses, 0).tolist() == middle_third(losses, 0).tolist()
    assert middle_third(losses, 0).tolist() != middle_third(losses, 1).tolist()


def test_selectit_rates_as_its_paper_says() -> None:
    """One row, two prompts.

    Prompt 1: p = (0.1, 0.2, 0.4, 0.2, 0.1), e^p = (1.105171, 1.221403, 1.491825, 1.221403, 1.105171) with sum 6.144973.
    The lead of v_3 over the others is (2 * 0.386654 + 2 * 0.270422) / 6.144973 / 4 = 0.0534645, times digit 3:
    0.160394. Prompt 2: (0, 0, 0, 0, 0.5) is p = (0, 0, 0, 0, 1) once normalised; the lead is (e - 1) / (4 + e) =
    0.255762, times digit 5: 1.278810. Mean 0.719602, deviation 0.559208; 0.719602 / (1 + 0.2 * 0.559208) = 0.647216.
    """
    probabilities = np.array([[[0.1, 0.2, 0.4, 0.2, 0.1], [0.0, 0.0, 0.0, 0.0, 0.5]]])
    assert ratings(probabilities) == pytest.approx([0.647216], abs=1e-5)


def test_selectit_does_not_rate_where_no_digit_has_a_probability() -> None:
    """0 / 0 is no rating."""
    assert np.isnan(ratings(np.zeros((1, 5, 5)))).all()


def test_less_weighs_checkpoints_by_learning_rate_and_takes_the_best_group() -> None:
    """Rates 3e-5 and 1e-5 weigh 0.75 and 0.25; target rows 0 and 1 are one group, 2 another.

    Row 0: 0.75 (0.4, 0.8, 0.1) + 0.25 (0, 0.4, 0.5) = (0.3, 0.7, 0.2): groups 0.5 and 0.2.
    Row 1: 0.75 (0.2, 0, 0.9) + 0.25 (0.6, 0.2, -0.3) = (0.3, 0.05, 0.6): groups 0.175 and 0.6.
    """
    cosines = np.array([[[0.4, 0.8, 0.1], [0.2, 0.0, 0.9]], [[0.0, 0.4, 0.5], [0.6, 0.2, -0.3]]])
    found = influences(cosines, np.array([3e-5, 1e-5]), np.array([0, 0, 1]))
    assert found == pytest.approx([0.5, 0.6], abs=1e-12)


def test_rds_plus_lets_groups_and_target_rows_take_turns() -> None:
    """Groups {0, 1} and {2}: turns go to target rows 0, 2, 1, 2.

    Target 0 takes row 0 (0.9). Target 2 likes row 0 most, which is taken, so takes row 2 (0.6). Target 1 likes row 0,
    then row 1 (0.6), which it takes. Row 3 is left for target 2.
    """
    similarities = np.array([[0.9, 0.7, 0.95], [0.8, 0.6, 0.3], [0.1, 0.5, 0.6], [0.2, 0.4, 0.1]])
    assert by_turns(similarities, np.array([0, 0, 1])).tolist() == [0, 2, 1, 3]
    assert by_turns(similarities, np.array([0, 0, 1]), 2).tolist() == [0, 2]


def test_tsds_density_counts_near_copies() -> None:
    """Rows at 0, 0.3 and 1 on a line, sigma 0.5: 1 - 0.09 / 0.25 = 0.64 between the first two, 0 from the third."""
    rows = np.array([[0.0, 0.0], [0.3, 0.0], [1.0, 0.0]])
    assert kernel_density(rows, 0.5, 3) == pytest.approx([1.64, 1.64, 1.0], abs=1e-9)
    assert kernel_density(rows, 0.5, 1) == pytest.approx([1.0, 1.0, 1.0], abs=1e-9)


def test_tsds_raises_masses_until_sending_them_on_costs_as_much_as_it_diversifies() -> None:
    """One target row, distances 0.2, 0.4, 0.6, 1; alpha 0.5 and C 1, so masses rise until the cost is 1 or more.

    Densities 1: after one row the cost of the next is 0.4 * 1 - 0.2 = 0.2, after two 0.6 * 2 - 0.6 = 0.6, after three
    1 * 3 - 1.2 = 1.8. So s = 3, two rows have 1/3 each and the next has the rest.
    Densities 2, 1, 1, 1: costs 0.4 * 0.5 - 0.1 = 0.1, then 0.6 * 1.5 - 0.5 = 0.4, then 1 * 2.5 - 1.1 = 1.4. s = 2.5:
    the first has 0.5 / 2.5 = 0.2, the second 1 / 2.5 = 0.4, the third the rest, 0.4.
    """
    settings = Transport(alpha=0.5, scale=1.0)
    distances, places = np.array([[0.2, 0.4, 0.6, 1.0]]), np.array([[2, 0, 3, 1]])
    even = masses(distances, places, np.ones((1, 4)), 5, settings)
    assert even == pytest.approx([1 / 3, 0.0, 1 / 3, 1 / 3, 0.0], abs=1e-12)
    crowded = masses(distances, places, np.array([[2.0, 1.0, 1.0, 1.0]]), 5, settings)
    assert crowded == pytest.approx([0.4, 0.0, 0.2, 0.4, 0.0], abs=1e-12)


def test_tsds_draws_every_row_once_and_rows_near_the_target_first() -> None:
    """40 rows around a circle; a target row at angle 0 may send mass to its four nearest, a tenth of the rows."""
    angles = np.linspace(0.0, np.pi, 40)
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    order = transport(rows, rows[:1], seed=0)
    assert sorted(order.tolist()) == list(range(40))
    assert set(order[:4].tolist()) == {0, 1, 2, 3}
    assert order[4:].tolist() == list(range(4, 40))
    assert transport(rows, rows[:1], seed=0).tolist() == order.tolist()


def test_grad_match_finds_weights_that_add_up_to_the_goal() -> None:
    """Rows (2, 0), (0, 1), (1, 1) sum to (3, 2).

    Products with it are 6, 2 and 5: row 0, with weight 6 / 4 = 1.5, leaves (0, 2). Products are then 0, 2, 2: row 1,
    with weight 2, leaves nothing, so a third row is not picked.
    """
    found = matching_pursuit(np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), None, 3)
    assert found.rows.tolist() == [0, 1]
    assert found.weights == pytest.approx([1.5, 2.0], abs=1e-9)


def test_grad_match_lets_a_row_go_whose_weight_would_be_negative() -> None:
    """Rows a = (4, 4) and b = (0.1, 1), goal (0.05, 1).

    a has the larger product, 4.2, and leaves (-0.475, 0.475). With b the best weights were -0.0139 of a and 1.0556 of
    b: a leaves, and of b alone it is (0.005 + 1) / 1.01 = 0.995050. The product of a with what is left is negative.
    """
    found = matching_pursuit(np.array([[4.0, 4.0], [0.1, 1.0]]), np.array([0.05, 1.0]), 2)
    assert found.rows.tolist() == [1]
    assert found.weights == pytest.approx([0.995050], abs=1e-6)


def test_grad_match_is_as_good_as_least_squares_without_negative_weights() -> None:
    """With every row allowed it is the non-negative least squares of scipy, which is not ours."""
    from scipy.optimize import nnls  # noqa: PLC0415 - an oracle of this test alone

    random = np.random.default_rng(3)
    for _ in range(20):
        rows, goal = random.standard_normal((12, 6)), random.standard_normal(6)
        found = matching_pursuit(rows, goal, 12)
        left = np.linalg.norm(goal - found.weights @ rows[found.rows])
        assert (found.weights > 0).all()
        assert left == pytest.approx(nnls(rows.T, goal)[1], abs=1e-6)


def test_facility_location_picks_the_rows_that_stand_for_the_others() -> None:
    """Rows at 0, 1, 2 and 10: distances sum to 13, 11, 11 and 27, so row 1 is first, as the lower of two.

    Then row 0 would save 1, row 2 would save 1 + 1, row 3 saves 9. Of the rest either saves 1. Row 2 is nearer to row
    1.
    """
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [10.0, 0.0]])
    picks = facility_location(rows, 3)
    assert picks.tolist() == [1, 3, 0]
    assert np.bincount(nearest_picks(rows, picks[:2])).tolist() == [3, 1]
    assert np.bincount(nearest_picks(rows, picks)).tolist() == [2, 1, 1]


def test_facility_location_equals_the_plain_greedy() -> None:
    """Of 90 rows, more than are looked at together, every pick is the one that a search over all rows finds."""
    rows = np.random.default_rng(5).standard_normal((90, 4))
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    plain = [int(distances.sum(axis=1).argmin())]
    nearest = distances[plain[0]]
    while len(plain) < 20:
        gains = np.maximum(nearest - distances, 0.0).sum(axis=1)
        gains[plain] = -1.0
        plain.append(int(gains.argmax()))
        nearest = np.minimum(nearest, distances[plain[-1]])
    assert facility_location(rows, 20).tolist() == plain


def test_an_excluded_row_is_stood_for_and_never_picked() -> None:
    """Rows at 0, 1, 2 and 10 as above: row 2 has the smallest sum of distances but for row 1."""
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [10.0, 0.0]])
    assert facility_location(rows, 3, exclude=np.array([1])).tolist() == [2, 3, 0]
    found = matching_pursuit(np.array([[3.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), None, 3, exclude=np.array([0]))
    assert dict(zip(found.rows.tolist(), found.weights.round(9).tolist(), strict=True)) == {1: 4.0, 2: 1.0}


@pytest.mark.parametrize("price", [None, np.linspace(0.0, 0.5, 6)])
def test_picks_in_an_order_that_ends_early_are_measured_as_they_are(price: np.ndarray | None) -> None:
    """Two rows in the order, three asked for: unit rows at right angles with alpha 1 hold log 2 each.

    The certificate has what two further rows could add, log 2 each, not three; a price keeps no row out.
    """
    limits = None if price is None else Constraints(price=price)
    config = SelectionConfig(budget=3, alpha=1.0, method="fisher")
    found = select_in_order(np.eye(6), np.array([2, 0]), config, limits)
    assert found.indices.tolist() == [2, 0]
    assert found.stop_reason == "exhausted"
    assert found.log_det == pytest.approx([0.693147, 1.386294], abs=1e-6)
    assert found.certificate == pytest.approx(0.5)
