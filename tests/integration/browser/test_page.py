"""What a person does with the page."""

from __future__ import annotations

import csv
import json
import re
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from sqlalchemy import delete, update

from app.access import keys, projects
from app.access.secrets import make_secret
from app.core.db.engine import make_engine, make_sessions
from app.core.db.selections import MAIN
from app.core.db.tables import Job, Scope, Selection, SelectionChunk, Stage, State
from tests.integration.conftest import real_rows
from tests.integration.many_picks import MILLION, gain, log_det, store_million
from workers.statistics.subset import thinned

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.integration.browser.conftest import Site
    from tests.integration.conftest import Service

HOSTILE = "</script><img src=x onerror='window.pwned = 1'><svg onload='window.pwned = 1'>"


def rows() -> list[dict[str, str]]:
    return [{**row, "source": "library" if number % 2 else "json"} for number, row in enumerate(real_rows())]


def finished(service: Service, **selection: Any) -> dict[str, Any]:
    body = service.request(service.write_dataset(rows()), baselines=["random", "fisher"], **selection)
    job = service.run({**body, "name": "nightly"})
    assert job["state"] == "succeeded", job["error"]
    return job


def fill_in(page: Page, service: Service) -> None:
    page.get_by_label("URI", exact=False).first.fill(service.write_dataset(rows()))
    page.locator("#model-uri").fill(service.model_uri)
    page.locator("#model-max_length").fill("128")


def accessible(page: Page) -> None:
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert not found, json.dumps(
        [{"id": one["id"], "help": one["help"], "nodes": [node["html"] for node in one["nodes"]][:3]} for one in found],
        indent=1,
    )


def test_submit_watch_look_download(site: Site, tmp_path: Path) -> None:
    page, service = site.open(), site.service
    expect(page.get_by_text("No job yet")).to_be_visible()
    page.get_by_role("link", name="New selection").first.click()
    fill_in(page, service)
    page.get_by_role("button", name="Preview rows").click()
    site.work_until(page.get_by_text("rows, read as prompt and response"))
    shown = page.locator(".tokens").first
    assert "assistant" in shown.locator(".masked").first.inner_text()
    learned = shown.locator("mark.learned").first
    assert real_rows()[0]["response"].splitlines()[0] in learned.inner_text().replace("↵", "")
    assert learned.locator(".unseen").text_content() == "learned: "
    assert "underline" in str(learned.evaluate("mark => getComputedStyle(mark).textDecorationLine"))
    accessible(page)

    page.get_by_label("Percent of the usable rows").fill("20")
    page.locator("#name").fill("nightly")
    expect(page.get_by_text("All 10 rows can be used.")).to_be_visible()
    assert page.locator("#preview").get_by_text("Nothing reads").count() == 0, "sources are read, for their figure"
    elements_alone = "one => [...one.childNodes].every((child) => child.nodeType === 1)"
    assert page.locator("#preview").evaluate(elements_alone), "what there is not leaves no word behind"
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="nightly", level=1)).to_be_focused()
    expect(page.get_by_text("Waiting for a worker", exact=False).first).to_be_visible()
    service.work()
    expect(page.locator(".state.succeeded")).to_be_visible()
    expect(page.locator("figure svg")).to_have_count(6)
    expect(page.get_by_text("is proven to have at least", exact=False)).to_be_visible()
    expect(page.locator("#live")).to_have_text("Job succeeded")

    (job,) = service.http.get("/jobs").json()["items"]
    subset = service.http.get(job["links"]["subset"]).json()
    assert job["selection"]["budget"] == {"fraction": 0.2, "count": None, "tokens": None}
    expect(page.locator(".rows > li")).to_have_count(10)
    for name, check in (("CSV", _same_csv), ("JSON", _same_json), ("Parquet", _not_empty), ("Rows", _same_rows)):
        with page.expect_download() as started:
            page.locator(".downloads").get_by_role("link", name=name, exact=True).click()
        target = tmp_path / started.value.suggested_filename
        started.value.save_as(target)
        check(target, subset)


def _same_csv(path: Path, subset: dict[str, Any]) -> None:
    assert [int(row["index"]) for row in csv.DictReader(path.open())] == subset["indices"]


def _same_json(path: Path, subset: dict[str, Any]) -> None:
    assert json.loads(path.read_text()) == subset


def _same_rows(path: Path, subset: dict[str, Any]) -> None:
    assert [json.loads(line) for line in path.open()] == [rows()[i] for i in sorted(subset["indices"])]


def _not_empty(path: Path, _: dict[str, Any]) -> None:
    assert path.stat().st_size > 0


def test_progress_shows_as_the_worker_reports_it(site: Site) -> None:
    job_id = site.service.submit(site.service.request())
    page = site.open(f"#/jobs/{job_id}")
    expect(page.get_by_text("Waiting for a worker.")).to_be_visible()
    engine = make_engine(site.service.settings)
    progress = {"done": 41, "total": 60, "unit": "samples", "rate": 2.0, "eta_s": 40}
    with make_sessions(engine)() as session:  # as a worker would
        lease = {"lease_token": uuid.uuid4(), "lease_expires_at": datetime.now(UTC) + timedelta(hours=1)}
        began = {"started_at": datetime.now(UTC)}
        values = {"state": State.RUNNING, "stage": Stage.GRADIENTS, "progress": progress, **began, **lease}
        session.execute(update(Job).where(Job.id == job_id).values(**values))
        session.commit()
    shown = page.locator(".progress")
    expect(shown).to_have_text(re.compile(r"41 of 60 samples, 2 a second, (40|[23]\d) s left"))
    first = shown.inner_text()
    expect(shown, "it ticks").not_to_have_text(first)
    expect(shown).to_have_text(re.compile(r"41 of 60 samples, 2 a second, \d+ s left"))
    expect(page.get_by_role("timer")).to_contain_text("since it began")
    assert page.get_by_role("progressbar").evaluate("bar => bar.position") == pytest.approx(41 / 60)
    expect(page.locator("[aria-current=step]")).to_have_text("Compute a gradient for each")
    expect(page.locator("#live")).to_have_text("gradients, 60 percent")
    accessible(page)
    with make_sessions(engine)() as session:  # its shards are done, and it waits for its next turn
        waiting = {"state": State.QUEUED, "lease_token": None, "lease_expires_at": None}
        session.execute(update(Job).where(Job.id == job_id).values(**waiting))
        session.commit()
    expect(page.locator(".progress")).to_have_text("Going on with what was computed.")
    expect(page.locator(".head .state")).to_have_text("◐ running")
    expect(page.locator("[aria-current=step]")).to_have_text("Compute a gradient for each")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".state.cancelled")).to_be_visible()
    engine.dispose()


def test_a_job_is_cancelled_and_deleted_after_a_question(site: Site) -> None:
    page = site.open(f"#/jobs/{site.service.submit(site.service.request())}")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".state.cancelled")).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No job yet")).to_be_visible()
    assert site.service.http.get("/jobs").json()["items"] == []


def test_what_the_server_refuses_is_said_at_its_field(site: Site) -> None:
    page = site.open("#/new")
    page.locator("#dataset-uri").fill("ftp://example.org/train.jsonl")
    page.locator("#model-uri").fill(site.service.model_uri)
    page.get_by_label("Percent of the usable rows").fill("150")
    page.locator("summary", has_text="settings of gradients").click()
    page.locator("#gradients-sketch_dim").fill("many")
    page.locator("summary", has_text="settings of gradients").click()
    page.get_by_role("button", name="Submit").click()
    budget = page.locator("[data-path='selection.budget']")
    expect(budget.locator(".error")).to_contain_text("less than or equal to 1")
    sketch = page.locator("#gradients-sketch_dim")
    expect(sketch).to_be_visible()
    assert sketch.get_attribute("aria-invalid") == "true"
    expect(page.locator("#gradients-sketch_dim-error")).to_contain_text("valid integer")
    expect(budget.locator("input").first).to_be_focused()  # it comes first on the page, if not in the answer
    page.get_by_label("Percent of the usable rows").fill("50")
    sketch.fill("64")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#dataset-uri-error")).to_contain_text("scheme 'ftp'")
    expect(page.locator("#dataset-uri")).to_be_focused()
    page.get_by_role("button", name="Preview rows").click()
    expect(page.locator("#dataset-uri-error")).to_contain_text("scheme 'ftp'")
    accessible(page)


def test_what_is_left_as_it_stands_is_for_the_preset_to_say(site: Site) -> None:
    page = site.open("#/new")
    page.locator("#dataset-uri").fill(site.service.write_dataset(real_rows(5)))
    page.locator("#model-uri").fill(site.service.model_uri)
    page.locator("#preset").select_option("authors-code")
    page.locator("#selection-conflict_penalty").fill("0.3")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("Waiting for a worker", exact=False).first).to_be_visible()
    (job,) = site.service.http.get("/jobs").json()["items"]
    assert (job["preset"], job["schedule"]["windows"], job["schedule"]["keep"]) == ("authors-code", 128, 64)
    assert (job["selection"]["normalize"], job["selection"]["baselines"]) == ("none", [])
    assert (job["selection"]["conflict_penalty"], job["gradients"]["rank"]) == (0.3, 16)


def test_every_setting_of_the_form_arrives_as_it_was_written(site: Site) -> None:
    page = site.open("#/new")
    fill_in(page, site.service)
    for summary in page.locator("form summary").all():
        summary.click()
    written = {
        "gradients-layers": "q_proj, layers.0.mlp.*",
        "gradients-warmup_steps": "2",
        "gradients-warmup_learning_rate": "0,001",
        "gradients-seed": str(2**63 - 1),
        "selection-partitions": "3",
        "timeout_s": "600",
        "expires_at": "2127-01-01T00:00:00Z",
        "metadata": "team = search\nwhy = a=b",
    }
    for field, text in written.items():
        page.locator(f"#{field}").fill(text)
    page.locator("#webhook-url").fill("https://127.0.0.1/hook")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#webhook-url-error")).not_to_be_empty()
    page.locator("#webhook-url").fill("")
    page.locator("#selection-budget-count").fill("10,000")  # ten thousand, or ten: the page does not guess
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("[data-path='selection.budget'] .error")).to_contain_text("valid integer")
    page.locator("#selection-budget-count").fill("10")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("Waiting for a worker", exact=False).first).to_be_visible()
    (job,) = site.service.http.get("/jobs").json()["items"]
    assert job["gradients"]["layers"] == ["q_proj", "layers.0.mlp.*"]
    assert job["gradients"]["warmup_steps"] == 2
    assert job["gradients"]["warmup_learning_rate"] == 0.001
    assert job["gradients"]["seed"] == 2**63 - 1
    assert job["selection"]["partitions"] == 3
    assert job["selection"]["budget"] == {"fraction": None, "count": 10, "tokens": None}
    assert job["timeout_s"] == 600
    assert job["expires_at"] == "2127-01-01T00:00:00Z"
    assert job["metadata"] == {"team": "search", "why": "a=b"}


def test_a_connection_that_breaks_is_taken_up_again(site: Site) -> None:
    job_id = site.service.submit(site.service.request())
    site.page.route("**/jobs/*/events*", lambda route: route.abort())
    page = site.open(f"#/jobs/{job_id}")
    expect(page.get_by_text("Waiting for a worker.")).to_be_visible()
    page.route(f"**/jobs/{job_id}", lambda route: route.abort())
    expect(page.locator(".lost")).to_have_text("The service does not answer. Trying again")
    expect(page.locator("#live")).to_have_text("The service does not answer. Trying again")
    expect(page.get_by_text("Waiting for a worker.")).to_be_visible()
    site.service.work()
    page.unroute_all()
    expect(page.locator(".state.succeeded")).to_be_visible()
    expect(page.locator(".lost")).to_be_hidden()
    expect(page.locator("figure svg").first).to_be_visible()
    page.route("**/jobs?*", lambda route: route.fulfill(status=503, json={"title": "The service is busy"}))
    page.get_by_role("link", name="Jobs").first.click()
    expect(page.locator(".lost")).to_have_text("The service is busy. Trying again")
    page.unroute_all()
    expect(page.locator("#jobs table")).to_be_visible()  # by itself
    page.route("**/jobs?*", lambda route: route.fulfill(status=503, json={"title": "The service is busy"}))
    expect(page.locator(".lost")).to_have_text("The service is busy. Trying again")
    expect(page.locator("#jobs table")).to_be_visible()
    page.unroute_all()
    expect(page.locator(".lost")).to_be_hidden()


def test_a_preview_begins_where_a_row_is_learned(site: Site) -> None:
    long = [{"prompt": "\n".join(f"{number}. on" for number in range(60)), "response": "The end."} for _ in range(3)]
    page = site.open("#/new")
    fill_in(page, site.service)
    page.locator("#dataset-uri").fill(site.service.write_dataset(long))
    page.locator("#model-max_length").fill("1024")
    page.get_by_role("button", name="Preview rows").click()
    site.work_until(page.locator(".tokens").first)
    in_sight = """box => {
        const [outer, inner] = [box, box.querySelector(".learned")].map((one) => one.getBoundingClientRect());
        return box.scrollHeight > box.clientHeight && inner.top >= outer.top && inner.bottom <= outer.bottom;
    }"""
    for box in page.locator("details[open] .tokens").all():
        assert box.evaluate(in_sight)


def test_a_preview_that_fails_says_why_where_it_belongs(site: Site) -> None:
    page = site.open("#/new")
    fill_in(page, site.service)
    page.locator("#dataset-uri").fill((site.service.directory / "nothing.jsonl").as_uri())
    page.get_by_role("button", name="Preview rows").click()
    site.work_until(page.locator("#dataset-uri-error"))
    fill_in(page, site.service)
    page.locator("#model-uri").fill(site.service.directory.as_uri())
    page.get_by_role("button", name="Preview rows").click()
    site.work_until(page.locator("#model-uri-error"))


def test_everything_can_be_done_by_keyboard(site: Site) -> None:
    page = site.open("#/new")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    job = {"dataset-uri": site.service.write_dataset(rows()), "model-uri": site.service.model_uri}
    reached = []
    for _ in range(80):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.id || document.activeElement.innerText")
        reached.append(name)
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"the focus does not show on {name}"
        if name in job:
            page.keyboard.type(job[name])
        if name == "Submit":
            page.keyboard.press("Enter")
            break
    assert {"dataset-uri", "model-uri", "Preview rows", "selection-method"} <= set(reached)
    expect(page.get_by_text("Waiting for a worker", exact=False).first).to_be_visible()
    site.service.work()
    expect(page.locator("figure svg").first).to_be_visible()
    summary = page.locator("figure summary").first
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.locator("figure table").first).to_be_visible()
    page.locator("#search").focus()
    page.keyboard.type("json")
    page.keyboard.press("Enter")
    expect(page.get_by_text("with “json”", exact=False).first).to_be_visible()


@pytest.mark.parametrize(
    "context_options",
    [
        {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
        {"viewport": {"width": 320, "height": 700}, "color_scheme": "dark"},
    ],
    indirect=True,
    ids=["wide and light", "narrow and dark"],
)
def test_every_view_is_accessible_light_and_dark_wide_and_narrow(site: Site, context_options: dict[str, Any]) -> None:
    one, other = finished(site.service), finished(site.service, conflict_penalty=0.5)
    for fragment, there in (
        ("#/", "table"),
        ("#/new", "form"),
        (f"#/jobs/{one['id']}", "figure svg"),
        (f"#/compare/{one['id']}/{other['id']}", "figure svg"),
        ("#/nowhere", "h1"),
    ):
        page = site.open(fragment)
        page.locator(there).first.wait_for()
        accessible(page)
        assert page.evaluate(WIDER_THAN_THE_WINDOW) == [], fragment
        assert page.evaluate(TINY_TEXT) == [], fragment
        dark = sum(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")) < 384
        assert dark == (context_options["color_scheme"] == "dark")
    page.goto(f"{site.url}/jobs/{one['id']}/report")
    page.locator("figure svg:visible").first.wait_for()
    assert page.evaluate(WIDER_THAN_THE_WINDOW) == []
    assert page.evaluate(TINY_TEXT) == []
    text = page.locator("td.text").first.bounding_box()
    assert text is not None
    assert text["width"] > 250, "a column to read in, on a phone too"


TINY_TEXT = """
    [...document.querySelectorAll("body *")]
        .filter((one) => [...one.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()))
        .filter((one) => one.getBoundingClientRect().height > 2)
        .filter((one) => {
            const drawing = one.closest("svg[viewBox]");
            const scale = drawing ? drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width : 1;
            return parseFloat(getComputedStyle(one).fontSize) * scale < 11;
        })
        .map((one) => one.outerHTML.slice(0, 200))
"""
WIDER_THAN_THE_WINDOW = """
    document.documentElement.scrollWidth <= innerWidth ? [] :
        [...document.querySelectorAll("body *")]
            .filter((one) => one.getBoundingClientRect().right > innerWidth && !one.closest(".wide"))
            .map((one) => one.outerHTML.slice(0, 200))
"""


def test_hostile_rows_and_names_are_text(site: Site) -> None:
    hostile = [{**row, "response": f"{row['response']} {HOSTILE}", "source": HOSTILE} for row in real_rows()]
    body = site.service.request(site.service.write_dataset(hostile, "<b>.jsonl"))
    job = site.service.run({**body, "name": HOSTILE, "metadata": {"<i>": HOSTILE}})
    page = site.open()
    expect(page.get_by_role("link", name=HOSTILE)).to_be_visible()
    page.get_by_role("link", name=HOSTILE).click()
    expect(page.locator(".rows .text", has_text=HOSTILE).first).to_be_visible()
    expect(page.locator("figure.sources svg")).to_be_visible()
    page.goto(f"{site.url}/jobs/{job['id']}/report")
    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    for address in ("", f"#/jobs/{job['id']}"):
        site.open(address)
        page.wait_for_timeout(200)
        assert page.evaluate("window.pwned === undefined")


def test_two_jobs_can_be_compared(site: Site) -> None:
    for penalty in (0.1, 0.5):
        finished(site.service, conflict_penalty=penalty)
    page = site.open()
    expect(page.get_by_role("checkbox")).to_have_count(2)
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("link", name="Compare 2 jobs").click()
    expect(page.get_by_text("rows are in both")).to_be_visible()
    expect(page.locator("td", has_text="0.5").first).to_be_visible()
    drawn = page.locator("figure svg.chart")
    expect(drawn.nth(2)).to_be_visible()
    for chart in drawn.all():
        expect(chart.locator("path.line"), "a line for each job, on the same axes").to_have_count(2)


def test_a_job_can_be_submitted_again_with_changes(site: Site) -> None:
    job = finished(site.service)
    page = site.open(f"#/jobs/{job['id']}")
    page.get_by_role("link", name="Submit again with changes").click()
    expect(page.locator("#dataset-uri")).to_have_value(job["dataset"]["uri"])
    page.locator("summary", has_text="settings of selection").click()
    page.locator("#selection-early_stop_ratio").fill("0.9")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("Waiting for a worker", exact=False).first).to_be_visible()
    again = site.service.http.get("/jobs").json()["items"][0]
    again["selection"]["baselines"].sort(reverse=True)
    assert again["selection"] == {**job["selection"], "early_stop_ratio": 0.9}
    assert {part: again[part] for part in ("dataset", "model", "gradients")} == {
        part: job[part] for part in ("dataset", "model", "gradients")
    }


def test_the_search_finds_and_marks_and_says_how_far_it_looked(site: Site) -> None:
    job = finished(site.service, budget={"fraction": 1.0})
    page = site.open(f"#/jobs/{job['id']}")
    page.locator("#search").fill("WRAPPED")
    page.locator("#search").press("Enter")
    hits = [row for row in rows() if "wrapped" in (row["prompt"] + row["response"]).lower()]
    assert hits
    expect(page.locator(".rows > li")).to_have_count(min(len(hits), 10))
    expect(page.locator(".rows mark").first).to_have_text("wrapped", ignore_case=True)
    expect(page.locator("#live")).to_contain_text("with “WRAPPED”")
    page.locator("#search").fill("no row says this")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("p.soft", has_text="0 rows with “no row says this” among the first 60 of 60")).to_be_visible()


def test_the_form_has_every_knob_of_a_job(site: Site) -> None:
    schemas = site.service.http.get("/openapi.json").json()["components"]["schemas"]
    page = site.open("#/new")
    page.locator("form").wait_for()
    shown = page.locator("[data-path]").evaluate_all("all => all.map(one => one.dataset.path)")
    assert len(shown) == len(set(shown))
    assert set(shown) == knobs(schemas, schemas["JobRequest"])
    assert page.locator("#section-Further").count() == 0, "each has words of its own in fields.js"
    for field in page.locator("[data-path]").all():
        assert field.locator(".help").inner_text() or not field.is_visible(), field.get_attribute("data-path")


# Offered as one control; and named by a URI (which may be a directory or a glob), or as the dataset's, instead.
WHOLE = {"dataset.columns", "schedule", "limits", "metadata"} | {
    f"selection.{name}"
    for name in ("budget", "normalize", "filters", "constraints", "target", "protect", "sweep", "stability")
}
ELSEWHERE = {"dataset.id", "dataset.uris", "train_on", "preference"}


def knobs(schemas: dict[str, Any], schema: dict[str, Any], path: str = "") -> set[str]:
    found = set()
    for name, field in schema["properties"].items():
        here = f"{path}{name}"
        reference = next((one["$ref"] for one in (field, *field.get("anyOf", ())) if "$ref" in one), None)
        inner = schemas[reference.split("/")[-1]] if reference else {}
        whole = here in WHOLE or "properties" not in inner
        found |= {here} if whole else knobs(schemas, inner, f"{here}.")
    return found - ELSEWHERE


@pytest.mark.parametrize("site_settings", ["keys"], indirect=True)
def test_a_key_is_asked_for_and_kept_in_the_tab_alone(keyed: tuple[Site, str], tmp_path: Path) -> None:
    site, token = keyed
    page = site.open()
    box = page.get_by_label("Key", exact=True)
    box.fill("ключ")
    page.get_by_role("button", name="Use").click()
    assert box.evaluate("one => one.validity.patternMismatch"), "the browser could not send it"
    box.fill("spice_wrong")
    page.get_by_role("button", name="Use").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("not one of this service")
    box.fill(f" {token} ")
    accessible(page)
    page.get_by_role("button", name="Use").click()
    page.get_by_role("link", name="nightly").click()
    expect(page.locator("figure svg").first).to_be_visible()
    for place, name in ((".downloads", "CSV"), (".actions", "Report")):
        with page.expect_download() as started:
            page.locator(place).get_by_role("button", name=name, exact=True).click()
        started.value.save_as(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 0
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    assert token not in page.url
    page.get_by_role("button", name="API key: set").click()
    page.get_by_role("button", name="Forget").click()
    expect(page.get_by_role("dialog")).to_be_visible()


@pytest.fixture
def keyed(site: Site) -> tuple[Site, str]:
    """A job, and a key to a service that asks for one."""
    finished(site.service)
    engine = make_engine(site.service.settings)
    secret = make_secret()
    with make_sessions(engine)() as session:
        owner = projects.find(session, "default")
        assert owner is not None
        keys.create(session, owner, secret, "test", Scope.WRITE, None)
    engine.dispose()
    return site, secret.token


def test_the_page_stays_quick_with_a_million_picks(site: Site) -> None:
    job_id = _million(site.service)
    began = time.monotonic()
    page = site.open(f"#/jobs/{job_id}")
    expect(page.locator("figure svg").first).to_be_visible()
    expect(page.locator(".downloads").first).to_be_visible()
    seconds = time.monotonic() - began
    print(f"a million picks: {seconds:.2f} s, {page.locator('*').count()} elements")
    assert page.locator("*").count() < 5000
    assert seconds < MOST_SECONDS
    began = time.monotonic()
    before = page.locator("figure.gains svg").get_attribute("width") or ""
    page.set_viewport_size({"width": 900, "height": 900})
    expect(page.locator("figure.gains svg")).not_to_have_attribute("width", before)
    assert time.monotonic() - began < MOST_SECONDS


MOST_SECONDS = 5


def _million(service: Service) -> str:
    """A finished job, blown up to a million picks."""
    job = finished(service)
    engine = make_engine(service.settings)
    ranks = thinned(MILLION, 1000).tolist()
    curve = {
        "runs": 1,
        "rank": ranks,
        "log_det": [log_det(rank - 1) for rank in ranks],
        "log_det_std": None,
        "marginal_gains": [gain(rank - 1) for rank in ranks],
    }
    with make_sessions(engine)() as session:
        head = session.get_one(Selection, (job["id"], MAIN))
        head.selected, head.log_det, head.curve = MILLION, log_det(MILLION - 1), curve
        session.execute(delete(SelectionChunk).where(SelectionChunk.job_id == job["id"], SelectionChunk.label == MAIN))
        store_million(session, uuid.UUID(job["id"]))
        session.commit()
    engine.dispose()
    return str(job["id"])


def test_what_a_job_takes_is_shown_before_it_is_submitted(site: Site) -> None:
    page, service = site.open(), site.service
    page.get_by_role("link", name="New selection").first.click()
    fill_in(page, service)
    page.get_by_role("button", name="Estimate").click()
    site.work_until(page.locator("#estimate").get_by_text("of memory"))
    shown = page.locator("#estimate")
    assert "60 rows" in shown.inner_text()
    assert "By the gradients of some rows" in shown.inner_text()
    assert shown.get_by_role("row").count() == 6, "a head, four stages and all of them"
    assert service.http.get("/jobs").json()["items"] == []
    accessible(page)
