"""Which of the media types that an endpoint offers a client accepts most."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def most_accepted(accept: str | None, offered: Sequence[str]) -> str | None:
    """The media type of the highest quality in `Accept`, the first offered among equals; None if there is none."""
    for media_range, quality in sorted(_media_ranges(accept or "*/*"), key=lambda item: -item[1]):
        for media_type in offered:
            if quality > 0 and _matches(media_type, media_range):
                return media_type
    return None


def _media_ranges(accept: str) -> list[tuple[str, float]]:
    """`Accept` as (media range, quality) pairs; a quality that can't be read counts as 1."""
    ranges = []
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 1.0
        ranges.append((media_range, quality))
    return ranges


def _matches(media_type: str, media_range: str) -> bool:
    kind, _, subtype = media_range.partition("/")
    return media_range in ("*/*", media_type) or (subtype == "*" and media_type.startswith(f"{kind}/"))
