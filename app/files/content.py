"""What the first bytes of a file tell of it, held against its name."""

from __future__ import annotations

BEGINNINGS = {
    ".gz": (b"\x1f\x8b", "a gzip file"),
    ".zst": (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    ".parquet": (b"PAR1", "a Parquet file"),
}
"""What files of a kind begin with; all others are text."""


def fault_of(name: str, head: bytes) -> str | None:
    """Why a file can't be what its name says; None if it can.

    Args:
        name: The file's name.
        head: Its first bytes.
    """
    if not head:
        return f"{name!r} is empty: send the file as the body of the request, as with curl --data-binary @{name}"
    suffix = f".{name.lower().rpartition('.')[2]}"
    if suffix in BEGINNINGS:
        begins, kind = BEGINNINGS[suffix]
        return None if head.startswith(begins) else f"{name!r} does not begin as {kind} does: send it as it is stored"
    for other, (begins, kind) in BEGINNINGS.items():
        if head.startswith(begins):
            return f"{name!r} begins as {kind} does: give it a name that ends in {other}"
    if head.startswith(b"--") and b"Content-Disposition: form-data" in head:
        return "is a form: send the file alone as the body of the request, as with curl --data-binary @FILE"
    if b"\0" in head:
        return f"{name!r} holds bytes that no text has: send JSONL, JSON or CSV as text, or a .parquet file"
    return None
