"""Take the pictures of the page in docs/img, out of a service that runs: `spice serve`, after `make demo`.

    make docs-pictures ARGS=http://127.0.0.1:8000

It submits two jobs over the demo's dataset and model, whose gradients are there, and looks at them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from spice_client import SpiceClient

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "img"
WIDTH, HEIGHT = 1120, 1160
PREVIEW_HEIGHT = 1200
COLOURS = 192


def main(url: str) -> None:
    """Submit, wait, and take all pictures."""
    script = ROOT / "scripts" / "browser.sh"
    found = subprocess.run([script], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - our own
    dataset = next((ROOT / "var" / "datasets").glob("instructions-*.jsonl")).as_uri()
    model = next((ROOT / "var" / "models").iterdir()).as_uri()
    request = {
        "dataset": {"uri": dataset},
        "model": {"uri": model},
        "selection": {"budget": {"fraction": 0.25}, "baselines": ["random", "dpp", "grad_norm"]},
        "name": "instructions, a quarter",
    }
    with SpiceClient(url) as client:
        job = client.wait(client.jobs.submit(request))
        selection = {**request["selection"], "method": "random", "baselines": []}
        other = client.wait(client.jobs.submit({**request, "selection": selection, "name": "as many at random"}))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found.stdout.strip(), args=["--no-sandbox", "--disable-gpu"]
        )
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)
            page = context.new_page()
            page.goto(f"{url}/#/jobs/{job.id}")
            page.locator(".rows > li").first.wait_for()
            page.screenshot(path=IMAGES / f"web-job-{scheme}.png")
            if scheme == "light":
                page.locator(".figures figure").nth(1).scroll_into_view_if_needed()
                page.locator(".figures").screenshot(path=IMAGES / "web-figures.png")
                preview(page, url, dataset, model)
                page.goto(f"{url}/#/compare/{job.id}/{other.id}")
                page.locator(".figures figure").nth(1).wait_for()
                page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
                page.screenshot(path=IMAGES / "web-compare.png")
            context.close()
        browser.close()
    for image in sorted(IMAGES.glob("web-*.png")):
        with Image.open(image) as picture:  # flat colours: a palette halves the file
            small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        small.save(image, optimize=True)
        print(f"{image.relative_to(ROOT)}: {image.stat().st_size // 1024} KiB")


def preview(page: Page, url: str, dataset: str, model: str) -> None:
    """The form, with rows as the model reads them."""
    page.goto(f"{url}/#/new")
    page.locator("#dataset-uri").fill(dataset)
    page.locator("#model-uri").fill(model)
    page.get_by_role("button", name="Preview rows").click()
    page.locator(".tokens").first.wait_for()
    page.locator("#dataset-uri").fill("file:///data/instructions.jsonl")
    page.locator("#model-uri").fill("file:///models/smollm2-135m-instruct")
    page.get_by_role("heading", name="New selection").focus()
    page.set_viewport_size({"width": WIDTH, "height": PREVIEW_HEIGHT})
    page.locator("#section-Model").evaluate("one => scrollTo(0, one.getBoundingClientRect().top + scrollY - 40)")
    page.screenshot(path=IMAGES / "web-preview.png")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
