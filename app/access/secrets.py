"""The format of API keys, and the hash of a key that is stored.

A key is `spice_<prefix>_<secret>`: the prefix of 12 hexadecimal digits finds the key, the secret has 256 random bits.
Postgres stores the SHA-256 of the secret. Slow hashes protect passwords that people think up; nobody guesses 256 bits.
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
    """A new key.

    Attributes:
        token: The whole key, shown to its owner once.
        prefix: The public part of the key.
        digest: The hash that is stored.
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
    """The prefix of a key; None if the text has not the form of a key."""
    found = FORM.fullmatch(token)
    return found[1] if found else None


def digest_of(token: str) -> bytes:
    """The SHA-256 of a key."""
    return hashlib.sha256(token.encode()).digest()


def same_digest(one: bytes, other: bytes) -> bool:
    """Compare two digests in constant time."""
    return hmac.compare_digest(one, other)
