"""Settings whose roots and cache are in the test's own directory."""

from tests.own_directory import make_settings, root, settings

__all__ = ["make_settings", "root", "settings"]
