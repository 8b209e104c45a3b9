"""The report and the page over HTTP: whole by themselves, and deaf to what hostile rows say."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from app.web.parts import PLACE
from tests.integration.conftest import real_rows

if TYPE_CHECKING:
    from tests.integration.conftest import Service

HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"


class Elements(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - the service's own drawing


@pytest.fixture(scope="module")
def service(shared_service: Service) -> Service:
    """One for all tests here, most of which look at one job."""
    return shared_service


@pytest.fixture(scope="module")
def job(service: Service) -> dict[str, Any]:
    """A finished job, which is not to be changed."""
    return finished(service)


def finished(service: Service) -> dict[str, Any]:
    rows = [{**row, "response": HOSTILE, "source": HOSTILE} for row in real_rows()]
    body = service.request(service.write_dataset(rows, "hostile.jsonl"), baselines=["random"])
    found = service.run({**body, "name": HOSTILE[:200], "metadata": {HOSTILE[:64]: HOSTILE}})
    assert found["state"] == "succeeded", found["error"]
    return found


def test_the_report_is_one_file_that_says_it_all_and_runs_nothing(service: Service, job: dict[str, Any]) -> None:
    response = service.http.get(f"/jobs/{job['id']}/report")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox" in response.headers["content-security-policy"]
    page = Elements(response.text)
    tags = [tag for tag, _ in page.found]
    assert not {"script", "img", "link", "iframe", "object", "base", "form"} & set(tags)
    assert not any(name.startswith("on") or name in {"href", "src"} for _, given in page.found for name in given)
    assert tags.count("svg") == 12  # each figure for a wide window and for a narrow one
    assert page.text.count(HOSTILE) >= 3  # in the rows, in the metadata, as a source
    result = job["result"]
    for wanted in (
        job["id"],
        result["fingerprint"],
        result["model_revision"],
        result["sketches"],
        result["versions"]["torch"],
        "selection.conflict_penalty",
        f"at least {result['certificate']['value']:.1%}",
    ):
        assert wanted in page.text, wanted
    assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w-]+\.\w", re.sub(r">[^<]*<", "><", response.text))


def test_the_report_outlives_its_rows(service: Service) -> None:
    job = finished(service)
    for file in (service.settings.data_dir / "artifacts" / "jobs" / job["id"]).iterdir():
        file.unlink()
    assert "The rows are not kept any more" in service.http.get(f"/jobs/{job['id']}/report").text


def test_figures_come_at_the_width_that_is_asked_for(service: Service, job: dict[str, Any]) -> None:
    found = service.http.get(f"/jobs/{job['id']}/figures", params={"width": 333, "curve_width": 444}).json()
    assert [figure["name"] for figure in found["figures"]][:2] == ["curve", "gains"]
    assert [parsed(figure["svg"]).get("width") for figure in found["figures"][:2]] == ["444", "333"]
    assert any("proven" in paragraph for paragraph in found["summary"])
    one = service.http.get(f"/jobs/{job['id']}/figures/sources")
    assert one.headers["content-type"] == "image/svg+xml"
    assert "sandbox" in one.headers["content-security-policy"]
    assert not any(element.tag.endswith("script") for element in parsed(one.text).iter())


def test_without_a_source_there_is_no_such_figure_and_without_a_result_none(service: Service) -> None:
    found = service.run(service.request())
    assert service.http.get(f"/jobs/{found['id']}/figures/sources").json()["type"] == "figure-not-found"
    waiting = service.submit(service.request())
    for what in ("figures", "figures/curve", "report"):
        assert service.http.get(f"/jobs/{waiting}/{what}").json()["type"] == "result-not-ready"


def test_the_page_runs_its_own_scripts_alone(service: Service) -> None:
    response = service.http.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    page = Elements(response.text)
    for tag, given in page.found:
        assert not any(name.startswith("on") or name == "style" for name in given)
        assert tag != "style"
        assert tag != "script" or (given["src"] or "").startswith("web/js/")
        address = given.get("src") or given.get("href") or ""
        if address.startswith("web/"):
            part = service.http.get(f"/{address}")
            assert part.status_code == 200
            assert part.headers["x-content-type-options"] == "nosniff"


def test_nothing_but_the_parts_of_the_page_is_served(service: Service) -> None:
    for path in ("pages.py", "__init__.py", "", "js", "../main.py", "%2e%2e/main.py", "js/../pages.py", "index.html"):
        assert service.http.get(f"/web/{path}").status_code == 404, path


def test_no_file_of_the_page_names_another_host() -> None:
    files = [file for file in PLACE.rglob("*") if file.suffix in {".html", ".css", ".js", ".svg"}]
    assert len(files) > 10
    for file in files:
        hosts = set(re.findall(r"(?:https?|wss?):\\?/\\?/([\w.-]+\w)", file.read_text()))
        assert hosts <= {"www.w3.org", "127.0.0.1"}, file


def test_the_form_describes_no_knob_that_there_is_not(service: Service) -> None:
    schemas = service.http.get("/openapi.json").json()["components"]["schemas"]
    written = set(re.findall(r'path: "([\w.]+)"', (PLACE / "js" / "fields.js").read_text()))
    assert len(written) > 20
    for path in written:
        schema = schemas["JobRequest"]
        for name in path.split("."):
            assert name in schema["properties"], path
            found = schema["properties"][name]
            reference = next((one["$ref"] for one in (found, *found.get("anyOf", [])) if "$ref" in one), None)
            schema = schemas[reference.split("/")[-1]] if reference else {"properties": {}}
