"""The API's reference at `/docs`. That it asks no other host and breaks no policy, the fixture holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from tests.integration.browser.conftest import Site


def test_the_reference_shows_every_operation_and_tries_one(site: Site) -> None:
    page = site.open("docs")
    paths = site.service.http.get("/openapi.json").json()["paths"]
    expect(page.locator(".opblock")).to_have_count(sum(len(operations) for operations in paths.values()))
    page.locator(".opblock-summary", has_text="/readyz").locator("button").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    answer = page.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status").first).to_contain_text("200")
    assert "script-src 'self'" in site.service.http.get("/docs").headers["Content-Security-Policy"]


@pytest.mark.parametrize("site_settings", ["keys"], indirect=True)
def test_the_reference_sends_the_key_that_it_is_given(site: Site) -> None:
    page = site.open("docs")
    page.get_by_role("button", name="Authorize").first.click()
    page.locator("#auth-bearer-value, .auth-container input").first.fill("spice_wrong")
    page.locator(".auth-btn-wrapper").get_by_role("button", name="Apply").click()
    page.locator(".auth-btn-wrapper").get_by_role("button", name="Close").click()
    page.locator(".opblock-get .opblock-summary").first.locator("button").first.click()
    page.get_by_role("button", name="Try it out").click()
    with page.expect_request(lambda request: request.headers.get("authorization") == "Bearer spice_wrong"):
        page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response .response-col_status").first).to_contain_text("401")
