from __future__ import annotations

from scripts import settings_page


def test_the_page_is_what_the_settings_class_says() -> None:
    assert settings_page.main(["--check"]) == 0, "run make docs-settings"
