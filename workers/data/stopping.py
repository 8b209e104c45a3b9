"""What ends work early that was told to stop."""

from __future__ import annotations


class Stopped(Exception):
    """`should_stop` said so: what was begun is dropped, what was finished is kept, and the memory is free again."""
