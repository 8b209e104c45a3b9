"""What a person does with proofs on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.integration.browser.test_page import accessible
from tests.integration.proofs.test_proofs import proof_body, prove, submit_proof

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.browser.conftest import Site


def test_a_proof_is_found_read_downloaded_and_deleted(site: Site, tmp_path: Path) -> None:
    page = site.open("#/proofs")
    expect(page.get_by_text("No proof yet")).to_be_visible()
    proof = prove(site.service, name="<b>does it train better</b>")
    assert proof["state"] == "succeeded", proof["error"]
    page.get_by_role("link", name="<b>does it train better</b>").click()
    expect(page.locator(".state.succeeded")).to_be_visible()
    (compared,) = proof["comparisons"]
    row = page.get_by_role("table", name="Comparisons").get_by_role("row").nth(1)
    expect(row).to_contain_text(compared["verdict"].replace("_", " "))
    low, high = (f"{end:+.4f}".replace("-", "\N{MINUS SIGN}") for end in compared["interval"])
    expect(row).to_contain_text(f"{low} to {high}")
    for arm in proof["arms"]:
        expect(page.get_by_role("table", name="Arms")).to_contain_text(f"{arm['mean']['loss']:.4f}")
    accessible(page)
    with page.expect_download() as started:
        page.get_by_role("button", name="Report").click()
    started.value.save_as(tmp_path / "report.html")
    assert "&lt;b&gt;does it train better" in (tmp_path / "report.html").read_text()
    page.goto(f"{site.url}/proofs/{proof['id']}/report")
    expect(page.get_by_text("selected against random: loss").first).to_be_visible()
    page = site.open(f"#/proofs/{proof['id']}")
    page.get_by_role("button", name="Delete").click()
    accessible(page)
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No proof yet")).to_be_visible()
    assert site.service.http.get("/proofs").json()["items"] == []


def test_a_waiting_proof_is_cancelled(site: Site) -> None:
    page = site.open(f"#/proofs/{submit_proof(site.service, proof_body(site.service))}")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".state.cancelled")).to_be_visible()
    expect(page.get_by_text("Nothing was compared")).to_be_visible()
