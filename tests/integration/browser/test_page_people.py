"""What a person does with jobs on the page, over answers that are laid out: no worker, no database, and so quick."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from PIL import Image
from playwright.sync_api import expect

from app.jobs.schemas import EXAMPLE_JOB
from app.web import pages
from tests.integration.browser.conftest import PATIENCE_MS, watch
from tests.integration.client.test_cli_client import RESULT
from tests.integration.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from playwright.sync_api import Browser, Page

NAMES = ("weekly", "nightly b", "nightly a")
PICKED = {"weekly": 5, "nightly b": 9, "nightly a": 3}
LINE = {"selected": 3, "rank": [1, 2, 3], "marginal_gains": [5.0, 4.0, 3.0], "runs": 1, "baselines": {}}
CONFLICT = {"mean": 0.1, "max": 0.2, "positive_fraction": 0.5, "histogram": {"edges": [0, 0.1, 0.2], "counts": [2, 1]}}
MARKS = [
    {"x": 100, "y": 10, "text": "web: 2 picked of 6", "rows": {"source": "web"}},
    {"x": 100, "y": 90, "text": "pick 3: 1.2 nats", "rows": {"first_rank": "3", "last_rank": "3"}},
]
FIGURE = {
    "name": "sources",
    "title": "Sources",
    "caption": "Where they are from.",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg" class="figure" viewBox="0 0 200 100" width="200" height="100"/>',
    "table": {"columns": ["source", "picked"], "rows": [["web", "2"]]},
    "marks": MARKS,
    "pointing": "y",
    "folded": None,
}
NO_CONFLICT = {**FIGURE, "name": "epsilon", "title": "Epsilon against conflict", "folded": "every conflict is 0"}
ROWS = [
    {
        "rank": rank,
        "index": 10 * rank,
        "marginal_gain": 4.0 - rank,
        "epsilon": -0.0,
        "conflict": 0.0,
        "suspect": False,
        "source": source,
        "messages": [{"role": "user", "content": f"Question {rank}\n```py\nx = {rank}\n```"}],
        "cut": False,
    }
    for rank, source in enumerate(("web", "book", "web"), start=1)
]
LEAGUE = {
    "methods": [
        {
            "method": name,
            "requested": name == "spice",
            "rows": 3,
            "tokens": 300,
            "log_det": log_det,
            "mean_conflict": 0.0,
            "overlap": 1.0,
            "target_covered": None,
            "target_cosine": None,
            "sources": {f"a source with a long name {number}": 0.1 for number in range(10)},
            "verdicts": verdicts,
        }
        for name, log_det, verdicts in (
            ("spice", 10.0, [{"verdict": "not_enough_runs", "metric": "loss", "against": "random"}]),
            ("random", 8.0, []),
        )
    ]
}
FATE = {
    "row": 17,
    "fate": "passed_over",
    "words": ["To the whole selection the row would add 0.02 nats."],
    "nearest": {"rank": 1, "row": 10, "cosine": 0.98, "messages": ROWS[0]["messages"]},
}
STATISTICS = {
    "lengths": {"edges": [0, 10, 20], "picked": {"counts": [1, 2]}},
    "sources": {
        "column": "source",
        "values": [{"value": "web", "all": 6, "picked": 2}, {"value": "book", "all": 4, "picked": 1}],
        "other": None,
    },
}


def job(number: int) -> dict[str, Any]:
    name = NAMES[number]
    result = {
        **RESULT,
        "selected": PICKED[name],
        "suspects": {"rows": 0, "picked": 0, "listed": 0},
        "log_det": 10.0 + number,
    }
    moments = {"started_at": "2026-11-24T03:00:00Z", "finished_at": f"2026-11-24T03:0{number}:30Z"}
    state = {"state": "succeeded", "stage": None, "progress": None, "workers": [], "error": None, "name": name}
    return {**EXAMPLE_JOB, **state, **moments, "result": result, "id": f"7d5fa1b4-0d6e-4a0e-8a35-5a3a0a9be4a{number}"}


JOBS = [job(number) for number in range(3)]
BY_ID = {one["id"]: one for one in JOBS}


PREVIEW = {
    "id": "p",
    "state": "succeeded",
    "shape": "prompt_response",
    "first_row": 0,
    "rows": [
        {
            "row": 0,
            "rejected": None,
            "tokens": 2,
            "learned_tokens": 1,
            "truncated": False,
            "pieces": ["2+2?", "4"],
            "learned": [False, True],
            "ignored": ["topic"],
        },
        {"row": 1, "rejected": "empty_response", "message": None},
    ],
}
REGISTERED = "3f0c5d0e-6f0e-4a53-9d0e-0f2f6f1b7a11"
UPLOADED = {
    "id": "9b" * 32,
    "uri": f"upload://5b1ce000-0000-4000-8000-000000000000/{'9b' * 32}/mine.csv",
    "name": "mine.csv",
    "bytes": 20,
    "uploaded_at": "2026-11-24T03:00:00Z",
}
OTHERS: dict[str, Any] = {
    "/openapi.json": {},
    "/files": {
        "datasets": [{"uri": "file:///data/odd.jsonl", "name": "data/odd.jsonl", "bytes": 253}],
        "models": [{"uri": "file:///models/small", "name": "models/small", "bytes": None}],
        "uploads": [],
        "complete": True,
    },
    "/datasets": {
        "id": "d",
        "state": "succeeded",
        "rows": 2,
        "columns": ["question", "reply", "topic"],
        "items": [{"id": REGISTERED, "name": "tickets, October", "uri": "s3://data/t.jsonl", "rows": 1200}],
        "next_cursor": None,
    },
    "/datasets/d": {"id": "d", "state": "succeeded", "rows": 2, "columns": ["question", "reply", "topic"]},
    "/proofs/alone": {
        "id": "alone",
        "name": "one arm",
        "job": None,
        "state": "succeeded",
        "settings": {"metrics": [{"name": "loss"}], "against": "random"},
        "summary": ["It took 6 s of training."],
        "comparisons": [],
        "arms": [{"name": "random", "rows": 34, "tokens": 1546, "runs": [], "mean": {"loss": 6.2392}}],
    },
    "/datasets/d/previews": PREVIEW,
    "/datasets/d/previews/p": PREVIEW,
}


class StandIn:
    """Answers as the service does, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.deleted: list[str] = []
        self.posted: dict[str, Any] = {}
        self.uploaded: dict[str, bytes] = {}
        self.empty = False
        self.app = FastAPI()
        pages.install(self.app)
        self.app.add_route("/{path:path}", self._answer, methods=["GET", "POST", "DELETE"])

    async def _answer(self, request: Request) -> JSONResponse:
        path = request.url.path
        self.asked.append(path)
        if (request.method, path) == ("POST", "/files"):
            return await self._upload(request)
        if request.method == "POST":
            self.posted[path] = await request.json()
        if path in OTHERS:
            return JSONResponse(OTHERS[path], 202 if request.method == "POST" else 200)
        if request.method == "POST":
            return JSONResponse(JOBS[0], 202)
        if path == "/jobs":
            prefix, state = request.query_params.get("name_prefix", ""), request.query_params.get("state", "succeeded")
            items = [one for one in JOBS if not self.empty and one["name"].startswith(prefix) and one["state"] == state]
            return JSONResponse({"items": items, "next_cursor": None, "total": len(items)})
        _, _, job_id, *rest = path.split("/")
        if job_id not in BY_ID:
            problem = {
                "type": "job-not-found",
                "title": "There is no such job",
                "status": 404,
                "detail": "Look at the id.",
            }
            return JSONResponse(problem, 404, media_type="application/problem+json")
        if request.method == "DELETE":
            self.deleted.append(job_id)
        log_det = [5.0, 9.0, BY_ID[job_id]["result"]["log_det"]]
        return JSONResponse(
            {
                "": BY_ID[job_id],
                "curve": {**LINE, "job_id": job_id, "log_det": log_det},
                "conflicts": {**CONFLICT, "job_id": job_id},
                "statistics": {**STATISTICS, "job_id": job_id},
                "figures": {"summary": ["In words."], "figures": [NO_CONFLICT, FIGURE]},
                "league": LEAGUE,
                "rows": FATE if rest[-1:] == ["why"] else self._rows(request.query_params),
                "comparison": self._comparison([job_id, *request.query_params.getlist("other")]),
            }[rest[0] if rest else ""]
        )

    async def _upload(self, request: Request) -> JSONResponse:
        name, content = request.query_params["name"], await request.body()
        self.uploaded[name] = content
        if name.endswith(".csv"):
            return JSONResponse(UPLOADED, 201)
        refused = {"field": "name", "message": "'mine.exe' does not tell the format: it should end in .jsonl"}
        problem = {"type": "invalid-request", "title": "The request is not valid", "errors": [refused]}
        return JSONResponse(problem, 422, media_type="application/problem+json")

    @staticmethod
    def _rows(asked: Mapping[str, str]) -> dict[str, Any]:
        first, last = int(asked.get("first_rank", 1)), int(asked.get("last_rank", 3))
        items = [
            row
            for row in ROWS
            if first <= row["rank"] <= last
            and asked.get("source", row["source"]) == row["source"]
            and row["marginal_gain"] >= float(asked.get("min_gain", 0))
        ]
        return {"items": items, "searched": last, "selected": 3, "next_cursor": None}

    @staticmethod
    def _comparison(ids: list[str]) -> dict[str, Any]:
        jobs = [
            {"job_id": one, "selected": 9, "shared": [4] * len(ids), "alone": 2, "alone_rows": [17, 1204]}
            for one in ids
        ]
        return {"jobs": jobs, "in_all": 4, "in_any": 12, "same_rows": True, "same_scale": True}


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def page(chromium: Browser, stand_in: StandIn) -> Iterator[Page]:
    with served(stand_in.app) as url:
        context = chromium.new_context(base_url=url, viewport={"width": 1280, "height": 900})
        context.set_default_timeout(PATIENCE_MS)
        faults = watch(context, url)
        yield context.new_page()
        context.close()
        assert faults() == []


def test_the_list_is_searched_sorted_and_found_again(page: Page) -> None:
    page.goto("/")
    names = page.locator("tbody th")
    expect(names).to_have_text(list(NAMES))
    expect(page.locator("#total")).to_have_text("3 jobs")
    page.get_by_label("Name begins with").fill("nightly")
    expect(names).to_have_text(["nightly b", "nightly a"])
    page.get_by_role("button", name="Picked").click()
    expect(page.get_by_role("columnheader", name="Picked")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("button", name="Picked").click()
    expect(names).to_have_text(["nightly a", "nightly b"])
    address = page.url
    assert "name=nightly" in address
    assert "sort=picked" in address
    page.get_by_role("link", name="nightly b").click()
    expect(page.get_by_role("heading", name="nightly b", level=1)).to_be_visible()
    page.go_back()
    expect(names).to_have_text(["nightly a", "nightly b"])
    assert page.url == address
    page.get_by_label("Show").select_option("failed")
    expect(page.get_by_text("No job that is failed has a name that begins with")).to_be_visible()
    page.get_by_label("Name begins with").fill("")
    expect(page.get_by_text("No job has failed.")).to_be_visible()


def test_jobs_are_compared_on_shared_axes_without_their_picks(page: Page, stand_in: StandIn) -> None:
    page.goto("/")
    boxes = page.get_by_role("checkbox")
    expect(boxes).to_have_count(3)
    for box in boxes.all():
        box.check()
    page.get_by_role("link", name="Compare 3 jobs").click()
    expect(page.get_by_role("heading", name="3 selections", level=1)).to_be_visible()
    drawn = page.locator("figure svg.chart")
    expect(drawn).to_have_count(4)
    for chart in drawn.all():
        expect(chart.locator("path.line"), "a line for each job, on the same axes").to_have_count(3)
    expect(page.get_by_text("4 of 12 rows are in all 3.")).to_be_visible()
    expect(page.get_by_text("17 · 1,204").first).to_be_visible()
    box = drawn.first.bounding_box()
    assert box is not None
    drawn.first.hover(position={"x": box["width"] - 14, "y": box["height"] / 2})  # waits until it stands still
    told = page.locator("figure").first.locator(".key b")
    expect(told).to_have_text(["10", "11", "12"])
    assert not any("subset" in path for path in stand_in.asked), "no list of picks is fetched"


LONG = "a/name/of/" + 190 * "n"


def test_no_name_widens_the_window(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of 200 characters without a space, of jobs, files and sources, wide and narrow."""
    monkeypatch.setitem(JOBS[0], "name", LONG)
    monkeypatch.setitem(JOBS[0], "dataset", {**JOBS[0]["dataset"], "uri": f"file:///data/{LONG[11:]}.jsonl"})
    for one in JOBS:
        monkeypatch.setitem(one, "created_at", datetime.now(UTC).isoformat())
    monkeypatch.setitem(JOBS[1], "error", {"title": "The dataset can't be used", "detail": "No rows."})
    monkeypatch.setitem(ROWS[0], "source", LONG)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        for address in ("#/", f"#/jobs/{JOBS[0]['id']}", f"#/compare/{JOBS[0]['id']}/{JOBS[1]['id']}"):
            page.goto(f"/{address}")
            expect(page.get_by_text(LONG).first).to_be_visible()
            page.locator("tbody th").first.wait_for()
            wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wider <= 0, (width, address)
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto("/#/")
    table = page.get_by_role("region", name="Jobs")
    expect(table).to_be_visible()
    assert table.evaluate("one => one.scrollWidth - one.clientWidth") == 0, "a desktop shows every column whole"


def test_all_that_a_job_was_asked_for_is_shown_and_compared(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(JOBS[0], "schedule", {"windows": 20, "keep": 5})
    monkeypatch.setitem(JOBS[0], "preset", "authors-code")
    monkeypatch.setitem(JOBS[0], "extends", JOBS[2]["id"])
    monkeypatch.setitem(JOBS[1], "priority", "high")
    page.goto(f"/#/jobs/{JOBS[0]['id']}")
    settings = page.get_by_role("region", name="Settings").locator("tr")
    for path, value in (("preset", "authors-code"), ("schedule.windows", "20"), ("extends", JOBS[2]["id"])):
        expect(settings.filter(has=page.get_by_role("rowheader", name=path, exact=True))).to_contain_text(value)
    page.goto(f"/#/compare/{JOBS[0]['id']}/{JOBS[1]['id']}")
    differ = page.get_by_role("region", name="Settings that differ").locator("tbody tr")
    expect(differ.filter(has_text="schedule.keep")).to_contain_text("not set")
    expect(differ.filter(has_text="priority")).to_contain_text("high")


def test_times_and_numbers_of_rows_are_said_as_people_say_them(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (finished, budget) in enumerate(
        (("03:00:59.7", {"count": 1}), ("03:59:59.6", {"count": 1000}), ("04:59:45", {"fraction": 1e-4}))
    ):
        monkeypatch.setitem(JOBS[number], "finished_at", f"2026-11-24T{finished}Z")
        monkeypatch.setitem(JOBS[number], "selection", {**JOBS[number]["selection"], "budget": budget})
    page.goto("/")
    expect(page.locator("td[data-head=Took]")).to_have_text(["1 min 0 s", "1 h 0 min", "2 h 0 min"])
    expect(page.locator("td[data-head=Budget]")).to_have_text(["1 row", "1,000 rows", "0.01%"])


def test_a_finished_job_says_how_it_is_used(page: Page) -> None:
    job_id = JOBS[0]["id"]
    page.goto(f"/#/jobs/{job_id}")
    use = page.get_by_role("region", name="Use it", exact=True)
    expect(use.locator("#job-id")).to_have_text(job_id)
    top = use.bounding_box()
    assert top is not None
    assert top["y"] < 700, "in the first window"
    lines = use.locator("#lines code")
    expect(lines).to_contain_text(f"spice download {job_id} --rows")
    use.get_by_label("The same by command, for").select_option("axolotl")
    expect(lines).to_contain_text(f"spice export {job_id} --format axolotl")
    expect(lines).to_contain_text("export SPICE_API_URL='http://127.0.0.1:")
    use.get_by_role("tab", name="CLI").press("ArrowRight")
    expect(use.get_by_role("tab", name="Python")).to_be_focused()
    expect(lines).to_contain_text(f'client.export("{job_id}", "axolotl", "data")')
    use.get_by_label("The same by command, for").select_option("indices")
    use.get_by_role("tab", name="curl").click()
    expect(lines).to_contain_text(f"/jobs/{job_id}/subset?format=csv")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    use.get_by_role("button", name="Copy the id").click()
    expect(page.locator("#live")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == job_id


def test_a_figure_answers_and_narrows_the_rows(page: Page) -> None:
    page.goto(f"/#/jobs/{JOBS[0]['id']}")
    rows = page.locator(".rows > li")
    expect(rows).to_have_count(3)
    expect(page.locator("details.folded")).to_contain_text("Epsilon against conflict: every conflict is 0")
    expect(page.locator("details.folded figure")).to_be_hidden()
    picture = page.locator("figure.sources svg")
    picture.hover(position={"x": 20, "y": 15})
    told = page.locator("figure.sources .told")
    expect(told).to_have_text("web: 2 picked of 6")
    picture.click(position={"x": 20, "y": 15})
    expect(rows).to_have_count(2)
    expect(page.get_by_label("Source", exact=True)).to_have_value("web")
    expect(page.locator(".narrowed")).to_contain_text("Of the figure: web: 2 picked of 6")
    picture.click(position={"x": 150, "y": 95})
    expect(rows).to_have_count(1)
    expect(rows.locator(".pick")).to_contain_text("row 30")
    page.get_by_role("button", name="Show all").click()
    expect(rows).to_have_count(3)
    page.mouse.move(0, 0)
    expect(told).to_be_hidden()
    page.get_by_label("Source", exact=True).select_option("book")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("from book")
    page.get_by_label("Source", exact=True).select_option("any source")
    page.get_by_label("gain at least").fill("2")
    page.get_by_label("gain at least").press("Enter")
    expect(rows).to_have_count(2)
    assert page.locator("main").inner_text().count("epsilon 0.000") == 2, "without a sign"
    code = rows.first.locator("code.block")
    expect(code).to_have_text("```py x = 1 ```")
    assert code.evaluate("one => getComputedStyle(one).whiteSpace") == "pre-wrap"


def test_methods_stand_side_by_side_and_fit_the_window(page: Page) -> None:
    page.goto(f"/#/jobs/{JOBS[0]['id']}")
    league = page.get_by_role("region", name="Methods side by side").first
    expect(league.get_by_role("row").nth(1)).to_contain_text("spice (this job)")
    expect(league).to_contain_text("not enough runs (loss against random)")
    league.get_by_text("Where each method's picks are from").click()
    sources = league.get_by_role("table", name="Picks of each method by source")
    expect(sources.get_by_role("row")).to_have_count(11)
    for table in league.locator(".wide").all():
        assert table.evaluate("one => one.scrollWidth <= one.clientWidth")


def test_a_row_that_was_not_picked_is_told_why(page: Page, stand_in: StandIn) -> None:
    page.goto(f"/#/jobs/{JOBS[0]['id']}")
    why = page.get_by_role("region", name="Why not this row?")
    why.get_by_label("Row number").fill("many")
    why.get_by_role("button", name="Ask").click()
    expect(why).to_contain_text("A row number is a whole number")
    why.get_by_label("Row number").fill("17")
    why.get_by_label("Row number").press("Enter")
    expect(why).to_contain_text("Row 17 passed over")
    expect(why).to_contain_text("would add 0.02 nats")
    expect(why.locator(".nearest")).to_contain_text("row 10, the nearest pick")
    assert f"/jobs/{JOBS[0]['id']}/rows/17/why" in stand_in.asked
    page.route("**/rows/18/why", lambda _route: None)  # no answer comes
    why.get_by_label("Row number").fill("18")
    why.get_by_label("Row number").press("Enter")
    expect(why, "what was told of another row is gone").to_have_text(re.compile("Looking for row 18$"))


def test_files_are_chosen_and_columns_mapped_beside_the_rows(page: Page, stand_in: StandIn) -> None:
    page.goto("/#/new")
    page.get_by_role("button", name="Preview rows").click()
    chosen = page.locator("#dataset-uri-choice")
    there = ["or choose one that is here", "tickets, October, 1,200 rows", "data/odd.jsonl, 253 bytes"]
    expect(chosen.locator("option")).to_have_text(there)
    chosen.select_option("file:///data/odd.jsonl")
    expect(page.locator("#dataset-uri")).to_have_value("file:///data/odd.jsonl")
    page.locator("#model-uri-choice").select_option("file:///models/small")
    page.get_by_role("button", name="Preview rows").click()
    expect(page.get_by_text("1 of 2 rows can't be used. If the rest is like them, the job fails")).to_be_visible()
    expect(page.get_by_text("Nothing reads these fields: topic (1 row).")).to_be_visible()
    mapping = page.locator("#mapping")
    mapping.get_by_label("Shape of a row").select_option("pair")
    mapping.get_by_label("prompt", exact=True).select_option("question")
    mapping.get_by_label("response", exact=True).select_option("reply")
    page.get_by_role("button", name="Preview rows").click()
    expect(page.locator("#live")).to_have_text("Preview of 2 rows")
    expect(page.get_by_role("button", name="Preview rows")).to_be_enabled()
    assert stand_in.posted["/datasets/d/previews"]["columns"] == {"prompt": "question", "response": "reply"}
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="weekly", level=1)).to_be_visible()
    assert stand_in.posted["/jobs"]["dataset"]["columns"] == {"prompt": "question", "response": "reply"}


def test_a_registered_dataset_is_chosen_by_its_name(page: Page, stand_in: StandIn) -> None:
    page.goto("/#/new")
    page.locator("#dataset-uri-choice").select_option("tickets, October, 1,200 rows")
    page.locator("#model-uri-choice").select_option("file:///models/small")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="weekly", level=1)).to_be_visible()
    asked = stand_in.posted["/jobs"]["dataset"]
    assert (asked["id"], "uri" in asked) == (REGISTERED, False)


def test_a_file_of_this_machine_is_uploaded_and_named(page: Page, stand_in: StandIn, tmp_path: Path) -> None:
    page.goto("/#/new")
    (tmp_path / "mine.exe").write_bytes(b"MZ")
    (tmp_path / "mine.csv").write_bytes(b"prompt,response\n1,2\n")
    page.locator("#upload").set_input_files(tmp_path / "mine.exe")
    expect(page.locator("#dataset-uri-error")).to_contain_text("The file 'mine.exe' does not tell the format")
    (tmp_path / "none.csv").touch()
    page.locator("#upload").set_input_files(tmp_path / "none.csv")
    expect(page.locator("#dataset-uri-error")).to_have_text("The file 'none.csv' is empty.")
    page.locator("#upload").set_input_files(tmp_path / "mine.csv")
    expect(page.locator(".upload")).to_contain_text("mine.csv, 20 bytes, is uploaded")
    expect(page.locator("#dataset-uri-error")).to_be_hidden()
    assert stand_in.uploaded["mine.csv"] == b"prompt,response\n1,2\n"
    page.locator("#model-uri-choice").select_option("file:///models/small")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="weekly", level=1)).to_be_visible()
    assert stand_in.posted["/jobs"]["dataset"]["uri"] == UPLOADED["uri"]


def test_a_column_that_is_not_chosen_yet_is_asked_for_in_words(page: Page, stand_in: StandIn) -> None:
    page.goto("/#/new")
    page.locator("#dataset-uri-choice").select_option("file:///data/odd.jsonl")
    page.locator("#model-uri-choice").select_option("file:///models/small")
    page.get_by_role("button", name="Preview rows").click()
    mapping = page.locator("#mapping")
    mapping.get_by_label("Shape of a row").select_option("pair")
    mapping.get_by_label("prompt", exact=True).select_option("question")
    page.get_by_role("button", name="Submit").click()
    expect(mapping.locator(".error")).to_have_text("Choose which column holds the response.")
    expect(mapping.get_by_label("Shape of a row")).to_be_focused()
    assert "/jobs" not in stand_in.posted


def test_an_empty_list_offers_a_whole_job_in_one_click(page: Page, stand_in: StandIn) -> None:
    stand_in.empty = True
    page.goto("/")
    expect(page.get_by_text("A tenth of data/odd.jsonl, as models/small reads it")).to_be_visible()
    page.get_by_role("button", name="Try it with what is here").click()
    expect(page.get_by_role("heading", name="weekly", level=1)).to_be_visible()
    asked = stand_in.posted["/jobs"]
    assert (asked["dataset"]["uri"], asked["model"]["uri"]) == ("file:///data/odd.jsonl", "file:///models/small")
    assert asked["selection"]["budget"] == {"fraction": 0.1}


def test_a_question_does_not_outlive_the_page_that_asked_it(page: Page, stand_in: StandIn) -> None:
    page.goto(f"/#/jobs/{JOBS[0]['id']}")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.evaluate("location.hash = '#/'")
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert stand_in.deleted == []


def channels(page: Page, selector: str) -> list[int]:
    colour: str = page.locator(selector).first.evaluate("one => getComputedStyle(one).color")
    return [int(float(part)) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_mean_what_people_expect_and_the_typeface_is_the_page_s_own(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    states = ("succeeded", "running", "failed")
    items = [{**JOBS[0], "state": state, "id": JOBS[number]["id"]} for number, state in enumerate(states)]
    listed = {"items": items, "next_cursor": None, "total": 3}
    page.route("**/jobs?*", lambda route: route.fulfill(json=listed))
    page.goto("/")
    expect(page.locator("tbody tr")).to_have_count(3)
    strongest = {state: channels(page, f"tbody .state.{state}") for state in states}
    assert [strongest[state].index(max(strongest[state])) for state in states] == [1, 2, 0], "green, blue, red"
    brand = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--spice')")
    assert brand not in [
        page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{one}')")
        for one in ("good", "busy", "alarm")
    ]
    assert page.evaluate("document.fonts.ready.then(() => document.fonts.check('600 20px \"Source Serif Pro\"'))")


def test_a_job_that_waits_tells_how_many_wait_for_longer(page: Page) -> None:
    waiting = {**JOBS[0], "state": "queued", "result": None, "started_at": None, "finished_at": None}
    page.route(f"**/jobs/{waiting['id']}", lambda route: route.fulfill(json=waiting))
    page.route("**/jobs?*", lambda route: route.fulfill(json={"items": [], "next_cursor": None, "total": 3}))
    page.route("**/jobs/*/events*", lambda route: route.abort())
    page.goto(f"/#/jobs/{waiting['id']}")
    expect(page.get_by_text("Waiting for a worker. 3 jobs wait for longer.")).to_be_visible()


def test_what_was_submitted_before_is_offered_again(page: Page) -> None:
    page.goto("/#/new")
    page.locator("#dataset-uri").fill("s3://data/recent.jsonl")
    page.locator("#model-uri-choice").select_option("file:///models/small")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="weekly", level=1)).to_be_visible()
    page.goto("/#/new")
    expect(page.locator("#dataset-uri-recent option")).to_have_attribute("value", "s3://data/recent.jsonl")


def test_an_empty_list_of_a_state_says_so_in_words(page: Page, stand_in: StandIn) -> None:
    stand_in.empty = True
    page.goto("/#/?state=succeeded")
    expect(page.get_by_text("No job has succeeded.")).to_be_visible()
    page.goto("/#/?state=cancelled")
    expect(page.get_by_text("No job was cancelled.")).to_be_visible()


def test_the_line_under_what_is_learned_leaves_underscores_to_be_seen(page: Page) -> None:
    page.goto("/#/new")
    page.locator("#dataset-uri-choice").select_option("file:///data/odd.jsonl")
    page.locator("#model-uri-choice").select_option("file:///models/small")
    page.get_by_role("button", name="Preview rows").click()
    learned = page.locator("mark.learned .token").first
    learned.evaluate("one => (one.textContent = '________')")
    learned.scroll_into_view_if_needed()
    box = learned.bounding_box()
    assert box is not None
    box["y"], box["height"] = box["y"] + box["height"] / 2, box["height"]  # the line lies below the letters' own box
    picture = Image.open(BytesIO(page.screenshot(clip=box))).convert("L")
    column = [picture.getpixel((picture.width // 2, y)) for y in range(picture.height)]
    paper = max(column)
    dark = [tone < paper - 60 for tone in column]
    lines = sum(now and not before for before, now in pairwise([False, *dark]))
    assert lines == 2, "the underscores, and the line that marks what is learned"


def test_an_error_page_says_its_title_once(page: Page) -> None:
    page.goto("/#/jobs/nobody")
    expect(page.get_by_role("heading", level=1)).to_have_text("There is no such job")
    assert page.locator("main").inner_text().count("There is no such job") == 1


def test_a_page_that_is_opened_in_an_outage_comes_by_itself(page: Page) -> None:
    page.route(f"**/jobs/{JOBS[0]['id']}", lambda route: route.abort())
    page.goto(f"/#/jobs/{JOBS[0]['id']}")
    expect(page.get_by_role("heading", level=1)).to_have_text("The service does not answer")
    expect(page.get_by_role("alert")).to_contain_text("Trying again.")
    page.unroute_all()
    expect(page.get_by_role("heading", level=1)).to_have_text("weekly")


def test_a_proof_of_one_arm_says_that_nothing_was_compared(page: Page) -> None:
    page.goto("/#/proofs/alone")
    expect(page.get_by_role("table", name="Arms")).to_contain_text("6.2392")
    expect(page.get_by_text("Nothing was compared: there is no arm beside random.")).to_be_visible()
    expect(page.get_by_role("table", name="Comparisons")).to_have_count(0)
