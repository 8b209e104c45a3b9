"""How an API key is written, and what of it is stored.

`spice_<prefix>_<secret>`: 12 hexadecimal digits to find it by, then 256 random bits. Only their SHA-256 is stored: a
slow hash is for what people think up, and nobody guesses 256 bits.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

FORM = re.compile(r"spice_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A key that has just been made up.

    Attributes:
        token: The whole of it, to be shown once.
        prefix: Its public part.
        digest: What is stored of it.
    """

    token: str = field(repr=False)
    prefix: str
    digest: bytes = field(repr=False)


def make_secret() -> NewSecret:
    """A new key."""
    prefix = secrets.token_hex(6)
    token = f"spice_{prefix}_{secrets.token_urlsafe(32)}"
    return NewSecret(token, prefix, digest_of(token))


def prefix_of(token: str) -> str | None:
    """The public part of a key; None for what is no key at all."""
    found = FORM.fullmatch(token)
    return found[1] if found else None


def digest_of(token: str) -> bytes:
    """The SHA-256 of a key."""
    return hashlib.sha256(token.encode()).digest()


def same_digest(one: bytes, other: bytes) -> bool:
    """Compare in a time that does not tell where they differ."""
    return hmac.compare_digest(one, other)
