"""The documentation as a site: `make docs` builds it into `site/`, and a link that leads nowhere ends the build."""

import re
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

project = "SPICE data selection"
copyright = "the SPICE data selection contributors"  # noqa: A001 - Sphinx's name for it
version = release = version_of("spice-select")
extensions = ["myst_parser", "sphinx.ext.mathjax"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["img", "_static"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "dollarmath"]
suppress_warnings = [
    "misc.highlighting_failure",  # examples of JSON with an ellipsis are not JSON
    "toc.not_included",  # a page that is younger than the index: found by search, and by those who link to it
]
html_theme = "furo"
html_title = project
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_js_files = ["copy.js"]
html_css_files = ["copy.css"]

ROOT = Path(__file__).resolve().parents[1]
OF_THE_ROOT = {"CHANGELOG": "changelog", "CONTRIBUTING": "contributing", "README": "index", "SECURITY": "reporting"}
"""Files of the repository's root, and the pages that stand for them on the site."""


def read_root_files(_app: Sphinx, page: str, source: list[str]) -> None:
    """Fill the pages that stand for files of the root, and point links to those files at the pages."""
    for name, stands_for in OF_THE_ROOT.items():
        if page == stands_for and page != "index":
            source[0] = re.sub(r"\]\((?!https?:|#)", "](../", (ROOT / f"{name}.md").read_text(encoding="utf-8"))
    for name, stands_for in OF_THE_ROOT.items():
        source[0] = source[0].replace(f"](../{name}.md", f"]({stands_for}.md")
    source[0] = source[0].replace("](../docs/", "](")


def setup(app: Sphinx) -> None:
    """Sphinx's own hook."""
    app.connect("source-read", read_root_files)
