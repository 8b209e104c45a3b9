"""Jobs that train the proxy as they select: windows, picks, training, and what is told of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import stats

from tests.integration.conftest import ROWS, real_rows
from tests.integration.problems import fields_of
from tests.unit.selection.naive_greedy import naive_picks
from workers.data.conversation import Conversation
from workers.data.samples import Sample
from workers.data.tokenisation import ConversationEncoder, Encoded
from workers.gradients.adapter import Adapter, LowRank
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.gradients.sketch import adapter_signs
from workers.gradients.starting_point import StartingPoint
from workers.gradients.targets import target_layers
from workers.models.proxy import load_model
from workers.selection.seeds import random_permutation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.integration.conftest import Service

WINDOWS, KEEP = 13, 3  # 60 rows: four windows, and one of eight rows
NEVER = 10**6


@pytest.fixture(scope="module")
def service(shared_service: Service) -> Service:
    return shared_service


def scheduled(service: Service, selection: dict[str, Any] | None = None, **schedule: Any) -> dict[str, Any]:
    body = service.request()
    del body["selection"]
    return {
        **body,
        **({} if selection is None else {"selection": selection}),
        "schedule": {"windows": WINDOWS, "keep": KEEP, "train_every": 2, "learning_rate": 0.02, **schedule},
    }


def done(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    job = service.run(body)
    assert job["state"] == "succeeded", job["error"]
    return job


def picks_of(service: Service, job: dict[str, Any]) -> list[int]:
    picks: list[int] = service.http.get(job["links"]["subset"]).json()["indices"]
    return picks


def curve_of(service: Service, job: dict[str, Any]) -> dict[str, Any]:
    return dict(service.http.get(f"/jobs/{job['id']}/statistics").json()["schedule"])


def by_hand(service: Service, **changed: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sketches of all rows at a fresh adapter with both its gradients, and losses a token.

    With `loss_over` "row" all tokens of a row carry loss.
    """
    model = load_model(Path(service.model_uri.removeprefix("file://")), dtype="float32", device=torch.device("cpu"))
    encoder = ConversationEncoder(model.tokenizer, 128)
    samples = []
    for number, row in enumerate(real_rows()):
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]
        [encoded] = encoder.encode([Conversation(turns, [False, True])])
        assert isinstance(encoded, Encoded)
        mask = encoded.loss_mask | (changed.get("loss_over") == "row")
        samples.append(Sample(number, encoded.input_ids, mask))
    config = GradientConfig(**{"rank": 4, "sketch_dim": 64, "warmup_steps": 1, **changed})
    fresh = {
        name: LowRank(
            adapter_signs(name, layer.in_features, 4, 0).float() / (3 * layer.in_features) ** 0.5,
            torch.zeros(layer.out_features, 4),
            scale=2.0,
        )
        for name, layer in target_layers(model.model, config).items()
    }
    found = GradientEngine(model, config, StartingPoint(Adapter(fresh))).sketch(samples)
    return found.values.astype(np.float64), found.token_losses.astype(np.float64)


def conflicts_of(picks: NDArray[np.float64]) -> NDArray[np.float64]:
    """By its definition, of each pick with the mean of those before it."""
    found = np.zeros(len(picks))
    for place in range(1, len(picks)):
        mean, row = picks[:place].mean(axis=0), picks[place]
        found[place] = max(0.0, -(row @ mean) / (np.linalg.norm(row) * np.linalg.norm(mean)))
    return found


def test_without_training_a_schedule_is_the_greedy_in_each_window(service: Service) -> None:
    """The last window has 8 of 13 rows, so 1 of 3 picks: 3 * 8 / 13, rounded down."""
    job = done(service, scheduled(service, {"normalize": "none"}, train_every=NEVER))
    sketches, losses = by_hand(service)
    order = random_permutation(ROWS, seed=0, role="schedule/rows", layer="")
    windows = [order[start : start + WINDOWS] for start in range(0, ROWS, WINDOWS)]
    alphas = [1 / np.median((sketches[window] ** 2).sum(axis=1)) for window in windows]
    expected = [
        window[naive_picks(sketches[window], keep, alpha, penalty=0.1)]
        for window, alpha, keep in zip(windows, alphas, [KEEP] * 4 + [1], strict=True)
    ]
    curve = curve_of(service, job)
    assert picks_of(service, job) == np.concatenate(expected).tolist()
    assert curve["window"] == [0, 1, 2, 3, 4]
    assert curve["picked"] == [3, 3, 3, 3, 1]
    assert (curve["steps"], curve["trained_after"], job["result"]["schedule"]["steps"]) == ([0] * 5, [], 0)
    assert curve["loss"] == pytest.approx([losses[window].mean() for window in windows], rel=1e-4)
    for at, (picks, alpha) in enumerate(zip(expected, alphas, strict=True)):
        z = sketches[picks] * alpha**0.5
        assert curve["log_det"][at] == pytest.approx(np.linalg.slogdet(np.eye(len(z)) + z @ z.T)[1], rel=1e-4)
        assert curve["conflict"][at] == pytest.approx(conflicts_of(z).mean(), abs=1e-4)


def test_training_changes_what_later_windows_are_scored_with(service: Service) -> None:
    """Two windows, a step, two windows, a step, and the last window: the first two are as without any training."""
    job, never = done(service, scheduled(service)), done(service, scheduled(service, train_every=NEVER))
    curve, before = curve_of(service, job), curve_of(service, never)
    assert curve["steps"] == [0, 0, 1, 1, 2]
    assert curve["trained_after"] == [2, 4]
    assert curve["learning_rate"] == [0.02, 0.02], "one of two steps rises, 3% rounded up; then it falls from the top"
    assert curve["loss"][:2] == before["loss"][:2]
    assert all(after < at_first for after, at_first in zip(curve["loss"][2:], before["loss"][2:], strict=True))
    assert picks_of(service, job)[:6] == picks_of(service, never)[:6]
    assert picks_of(service, job) != picks_of(service, never)
    assert done(service, scheduled(service, seed=1))["result"]["schedule"]["steps"] == 2
    twice = curve_of(service, done(service, scheduled(service, epochs=2)))
    assert (twice["steps"], twice["trained_after"]) == ([0, 0, 2, 2, 4], [2, 2, 4, 4])
    assert twice["train_loss"][1] < twice["train_loss"][0], "the second step is over the rows of the first"


def test_the_same_schedule_again_finds_its_windows_there(service: Service) -> None:
    """And nothing of it is taken for sketches of a job without a schedule, or the other way round."""
    plain = done(service, service.request())
    first, second = done(service, scheduled(service, seed=7)), done(service, scheduled(service, seed=7))
    assert first["result"]["gradients"] == {"computed": ROWS, "reused": 0}
    assert second["result"]["gradients"] == {"computed": 0, "reused": ROWS}
    assert picks_of(service, first) == picks_of(service, second)
    assert first["result"]["schedule"] == second["result"]["schedule"]
    again = done(service, service.request())
    assert again["result"]["gradients"] == {"computed": 0, "reused": ROWS}
    assert picks_of(service, again) == picks_of(service, plain)


def test_a_schedule_is_estimated_as_all_of_its_rows_or_none(service: Service) -> None:
    """Sketches of a job without a schedule are of no use to it; those of the same schedule are."""
    done(service, service.request())
    body = scheduled(service, seed=11)
    first = service.estimate(body).json()
    assert (first["gradient_rows"], first["selected"]) == (ROWS, 13)
    assert first["seconds"]["stages"]["gradients"]["likely"] > 0
    done(service, body)
    assert service.estimate(body).json()["gradient_rows"] == 0


def test_the_result_sums_the_windows_up(service: Service) -> None:
    """With 20 windows a tenth is two; numbers of the whole are those of all picks together."""
    job = done(service, scheduled(service, {"normalize": "none"}, windows=3, keep=2, train_every=4))
    curve, told, result = curve_of(service, job), job["result"]["schedule"], job["result"]
    assert (told["windows"], told["steps"]) == (20, 5)
    assert told["conflict_first"] == pytest.approx(np.mean(curve["conflict"][:2]))
    assert told["conflict_last"] == pytest.approx(np.mean(curve["conflict"][-2:]))
    assert told["loss_first"] == pytest.approx(np.mean(curve["loss"][:2]))
    assert told["loss_last"] == pytest.approx(np.mean(curve["loss"][-2:]))
    # Of two picks the first has neither conflict nor epsilon: the second has twice the mean of both.
    spearman = stats.spearmanr(curve["conflict"], -np.array(curve["epsilon"])).statistic
    assert told["conflict_epsilon"] == pytest.approx(spearman)
    assert -1 <= told["conflict_gain"] <= 1
    assert result["selected"] == 40 == len(set(picks_of(service, job)))
    rows = service.http.get(f"/jobs/{job['id']}/curve", params={"max_points": 1000}).json()
    assert rows["log_det"][-1] == pytest.approx(result["log_det"])
    assert 0 < result["certificate"]["value"] <= 1
    assert result["stop_reason"] == "budget"
    assert service.http.get(f"/jobs/{job['id']}/statistics").json()["early_stop"] is None
    figures = service.http.get(f"/jobs/{job['id']}/figures").json()["figures"]
    assert {"window_conflict", "window_loss"} <= {figure["name"] for figure in figures}
    report = service.http.get(f"/jobs/{job['id']}/report").text
    assert all(words in report for words in ("Conflict by window", "schedule.train_every", "priority"))
    [left, *_] = set(range(ROWS)) - set(picks_of(service, job))
    words = service.http.get(f"/jobs/{job['id']}/rows/{left}/why").json()["words"]
    assert words[1] == "The job has a schedule: the row was compared with those of its own window alone."


def test_an_early_stop_is_of_each_window(service: Service) -> None:
    kept = [
        done(service, scheduled(service, {"early_stop_ratio": ratio, "normalize": "none"}, keep=WINDOWS))["result"]
        for ratio in (0.3, 0.7)
    ]
    assert [one["stop_reason"] for one in kept] == ["early_stop", "early_stop"]
    assert ROWS > kept[0]["selected"] > kept[1]["selected"] >= 5, "the first of each window always stays"


@pytest.mark.parametrize(
    "selection",
    [
        {"method": "random"},
        {"method": "grad_norm"},
        {"method": "dpp"},
        {"method": "fisher"},
        {"method": "spice", "fisher": "reference", "normalize": "none"},
        {"method": "spice", "fisher": "reference_top_k", "normalize": {"clip": 0.5}},
    ],
)
def test_each_method_that_can_be_windowed(service: Service, selection: dict[str, Any]) -> None:
    job = done(service, scheduled(service, selection, train_every=3))
    assert len(picks_of(service, job)) == len(set(picks_of(service, job))) == 13
    order = random_permutation(ROWS, seed=0, role="schedule/rows", layer="").tolist()
    windows = [order.index(row) // WINDOWS for row in picks_of(service, job)]
    assert windows == sorted(windows), "the subset is in the order of picking"
    places = [order.index(row) % WINDOWS for row in picks_of(service, job)]
    assert places[:3] != places[3:6], "no window repeats the draw of the one before"


def published(sketches: NDArray[np.float64], keep: int, alpha: float, penalty: float | None) -> list[int]:
    """The published selector by its formula; without a penalty its top k.

    gain = log(1 + alpha sum_j z_j^2 / den_j), den_j = 1 + alpha sum over picks of z_j^4, less the penalty times the
    negative part of the cosine with the mean of the picks.
    """
    if penalty is None:
        return np.argsort(-np.log1p(alpha * (sketches**2).sum(axis=1)), kind="stable")[:keep].tolist()
    picks: list[int] = []
    for _ in range(keep):
        gains = np.log1p(alpha * (sketches**2 / (1 + alpha * (sketches[picks] ** 4).sum(axis=0))).sum(axis=1))
        if picks:
            mean = sketches[picks].mean(axis=0)
            cosines = sketches @ mean / (np.linalg.norm(sketches, axis=1) * np.linalg.norm(mean))
            gains -= penalty * np.maximum(0.0, -cosines)
        gains[picks] = -np.inf
        picks.append(int(gains.argmax()))
    return picks


@pytest.mark.parametrize(
    ("selection", "penalty"),
    [({}, None), ({"fisher": "reference"}, 0.1), ({"fisher": "reference", "conflict_penalty": 1.0}, 1.0)],
)
def test_the_authors_code_picks_what_their_formula_picks(
    service: Service, selection: dict[str, Any], penalty: float | None
) -> None:
    """Over prompt and response, by the mean of a row's losses, window by window."""
    body = scheduled(service, {"alpha": 0.5, **selection}, keep=6, train_every=NEVER) | {"preset": "authors-code"}
    job = done(service, body)
    assert (job["preset"], job["gradients"]["loss_over"]) == ("authors-code", "row")
    sketches, _ = by_hand(service, loss_over="row", loss_normalization="mean")
    order = random_permutation(ROWS, seed=0, role="schedule/rows", layer="")
    windows = [order[start : start + WINDOWS] for start in range(0, ROWS, WINDOWS)]
    expected = [
        window[published(sketches[window], keep, 0.5, penalty)]
        for window, keep in zip(windows, [6] * 4 + [3], strict=True)
    ]
    assert picks_of(service, job) == np.concatenate(expected).tolist()


def test_a_preset_fills_in_what_the_request_leaves_out(service: Service) -> None:
    body = {**service.request(), "preset": "authors-code", "schedule": {"keep": 32}}
    body["selection"] = {"conflict_penalty": 0.5}
    job = service.job(service.submit(body))
    assert job["schedule"] == {
        "windows": 128,
        "keep": 32,
        "train_every": 10,
        "epochs": 1,
        "learning_rate": 2e-4,
        "weight_decay": 0.01,
        "warmup_ratio": 0.03,
        "seed": 0,
    }
    selection, gradients = job["selection"], job["gradients"]
    assert (selection["fisher"], selection["normalize"], selection["conflict_penalty"]) == (
        "reference_top_k",
        "none",
        0.5,
    )
    assert selection["budget"]["fraction"] == 0.25
    assert (gradients["rank"], gradients["sketch_dim"]) == (4, 64), "what the request says itself stays"
    assert (gradients["loss_over"], gradients["loss_normalization"]) == ("row", "mean")
    paper = service.job(service.submit({**service.request(), "preset": "paper-qwen2-7b", "selection": {}}))
    assert (paper["schedule"]["windows"], paper["schedule"]["keep"]) == (120, 12)
    assert (paper["selection"]["budget"]["fraction"], paper["gradients"]["loss_over"]) == (0.1, "response")
    once = {**service.request(), "preset": "paper-llama2-7b", "schedule": None}
    assert service.job(service.submit(once))["schedule"] is None, "null is something that the request says"
    for one in service.http.get("/jobs").json()["items"]:
        if one["state"] == "queued":
            service.http.post(f"/jobs/{one['id']}/cancel")
    refused = service.http.post("/jobs", json={**service.request(), "preset": "paper"})
    assert "paper-qwen2-7b" in fields_of(refused)["preset"]


def test_rows_that_are_the_same_are_scored_in_their_own_windows(service: Service) -> None:
    uri = service.write_dataset(real_rows(20) * 3, "thrice.jsonl")
    body = scheduled(service, {"method": "random"}) | {"dataset": {"uri": uri}}
    job = done(service, body)
    assert job["result"]["gradients"]["computed"] == 60
    assert done(service, body)["result"]["gradients"]["reused"] == 60


def test_a_proof_can_not_make_the_selection_again(service: Service) -> None:
    job_id = service.submit(scheduled(service, seed=13))
    told = fields_of(service.http.post("/proofs", json={"job": job_id}))["job"]
    assert "has a schedule" in told
    assert "give the picks of this one as an arm of indices" in told
    service.http.post(f"/jobs/{job_id}/cancel")


def test_the_job_shows_what_the_schedule_implies(service: Service) -> None:
    body = scheduled(service, windows=120, keep=12)
    del body["gradients"]
    job_id = service.submit(body)
    job = service.job(job_id)
    assert job["selection"]["budget"] == {"fraction": 0.1, "count": None, "tokens": None}
    assert job["selection"]["filters"] == dict.fromkeys(("loss", "norm", "cosine", "ifd", "end_loss"))
    assert job["selection"]["representative"] == 0
    assert (job["gradients"]["rank"], job["gradients"]["prompt_effect"]) == (16, False)
    assert job["schedule"] == {
        "windows": 120,
        "keep": 12,
        "train_every": 2,
        "epochs": 1,
        "learning_rate": 0.02,
        "weight_decay": 0.01,
        "warmup_ratio": 0.03,
        "seed": 0,
    }
    service.http.post(f"/jobs/{job_id}/cancel")


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"schedule": {"windows": 10, "keep": 11}}, "schedule", "keep is 11, more than the 10 candidates of a window"),
        ({"schedule": {"windows": 0}}, "schedule.windows", "greater than or equal to 1"),
        ({"schedule": {"train_every": 0}}, "schedule.train_every", "greater than or equal to 1"),
        ({"schedule": {"learning_rate": 0}}, "schedule.learning_rate", "greater than 0"),
        ({"schedule": {"warm": 1}}, "schedule.warm", "there is no such field"),
        ({"selection": {"method": "ifd"}}, "body", "selection.method 'ifd' ranks all rows by the losses of one model"),
        ({"selection": {"budget": {"count": 6}}}, "body", "keep / windows = 0.1 as a fraction: leave it out"),
        ({"selection": {"filters": {"loss": {"max": 3}}}}, "body", "selection.filters go by figures of all rows"),
        ({"selection": {"budget": {"tokens": 500}}}, "body", "keep / windows = 0.1 as a fraction: leave it out"),
        ({"selection": {"representative": 0.1}}, "body", "each window is picked from by itself"),
        ({"selection": {"sweep": {"alpha": [1.0]}}}, "body", "leave it or schedule out"),
        ({"selection": {"baselines": ["random"]}}, "body", "pick from all rows at once"),
        ({"selection": {"partitions": 2}}, "body", "windows one after the other"),
        ({"gradients": {"target": "linear"}}, "body", "a schedule trains an adapter: use 'lora'"),
        ({"gradients": {"warmup_steps": 3}}, "body", "gradients.warmup_steps is of one adapter"),
        ({"gradients": {"preconditioner": "adam"}}, "body", "gradients.preconditioner is of one adapter"),
        ({"preference": "dpo"}, "body", "use 'chosen' or 'rejected'"),
        ({"limits": {"seconds": 5}}, "body", "leave limits out, or use timeout_s"),
        ({"selection": {"method": "dpp", "fisher": "reference"}}, "selection", "a score of methods spice and fisher"),
        ({"gradients": {"loss_over": "row", "prompt_effect": True}}, "gradients", "prompt_effect is of responses"),
    ],
)
def test_what_a_schedule_can_not_do_is_refused(
    service: Service, change: dict[str, Any], field: str, words: str
) -> None:
    body = {**service.request(), "schedule": {}}
    del body["selection"]
    response = service.http.post("/jobs", json=body | change)
    told = fields_of(response)
    assert words in told.get(field, ""), told
