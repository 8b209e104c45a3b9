"""As whom the embedded servers run when the service itself runs as root.

PostgreSQL refuses to run as root. Nothing of the host is changed for its sake: no account is made, and no directory
above the data is opened. The servers run as `nobody`, who owns the data directory. Where a directory above it is closed
to `nobody`, the server still reaches its data: it is started in the data directory, and names it by its working
directory. Programs that `nobody` cannot reach are copied to where it can.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.local.errors import LocalServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME: Final = "nobody"
WORKING_DIRECTORY: Final = Path("/proc/self/cwd")
"""A link of the kernel's, which leads there whatever the directories above are closed to."""
RUN_AS_A_USER: Final = "run the service as a user of your own instead of root"


@dataclass(frozen=True)
class Account:
    """The ids that a server process takes on."""

    uid: int
    gid: int

    def may(self, path: Path, *, run: bool = False) -> bool:
        """Whether it may read a file (and run it), by the file's mode, and pass through all directories above it."""
        wanted = 0o5 if run else 0o4
        above = {*path.parents, *path.resolve().parents}
        return self._has(path.stat(), wanted) and all(self._has(directory.stat(), 0o1) for directory in above)

    def _has(self, found: os.stat_result, bits: int) -> bool:
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid == self.gid else 0
        return (stat.S_IMODE(found.st_mode) >> shift) & bits == bits


def account_for(directory: Path) -> Account | None:
    """The account to run a server as whose data is in `directory`; None to stay as we are.

    Existing data keeps its owner.

    Args:
        directory: The server's data directory; need not exist.

    Returns:
        None unless this process is root.

    Raises:
        PermissionError: The directory belongs to someone else and this process is not root.
        LocalServerError: This process is root, and the host has no account for the servers or no /proc.
    """
    owner = directory.stat() if directory.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise PermissionError(
                f"{directory} belongs to user {owner.st_uid} and this is user {os.geteuid()}: "
                "run as that user or as root, or choose another directory with --data-dir"
            )
        return None
    if not WORKING_DIRECTORY.exists():
        raise LocalServerError(f"PostgreSQL does not run as root, and there is no /proc here: {RUN_AS_A_USER}")
    if owner is not None and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        raise LocalServerError(
            f"PostgreSQL does not run as root, and this host has no account {NAME!r} for it: {RUN_AS_A_USER}"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def give(directory: Path, account: Account | None) -> None:
    """Make a directory for the account alone, or for us alone if there is none."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    if account is not None:
        os.chown(directory, account.uid, account.gid)


def write_for(account: Account | None, file: Path, content: str) -> None:
    """Write a file anew that the account alone may read, or we alone if there is none."""
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(content)
    if account is not None:
        os.chown(file, account.uid, account.gid)


def reachable(program: Path, home: Path, account: Account | None, parts: Sequence[str] = (".",)) -> Path:
    """A program that the account can run: itself, or its copy.

    Args:
        program: The program.
        home: A directory above it.
        account: Who is to run it; None for ourselves.
        parts: The directories in `home` that hold the program and all that it needs.

    Raises:
        LocalServerError: The account can reach no directory that a copy could be in.
    """
    if account is None or account.may(program, run=True):
        return program
    version = hashlib.sha256(f"{program} {program.stat().st_mtime_ns}".encode()).hexdigest()[:16]
    for place in places():
        copy = place / f"spice-{program.name}-{version}"
        with contextlib.suppress(OSError):
            if not copy.exists():
                _copy(home, parts, copy)
            found = copy.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
            runs = not os.statvfs(copy).f_flag & os.ST_NOEXEC
            if ours and runs and account.may(copy / program.relative_to(home), run=True):
                return copy / program.relative_to(home)
    raise LocalServerError(
        f"user {account.uid}, as whom {program.name} is to run, cannot reach {program}: {RUN_AS_A_USER}, or set TMPDIR "
        "to a directory that all users may enter, for a copy"
    )


def places() -> tuple[Path, ...]:
    """Directories that all users may enter, on most hosts; the first that serves is taken."""
    return tuple(map(Path, (tempfile.gettempdir(), "/var/tmp", "/run")))  # noqa: S108 - what is there is checked


def _copy(home: Path, parts: Sequence[str], copy: Path) -> None:
    """Copy parts of a directory, for all users to read; the copy is there whole or not at all."""
    with tempfile.TemporaryDirectory(dir=copy.parent, prefix="spice-copy-") as staging:
        new = Path(staging) / copy.name
        for part in parts:
            shutil.copytree(home / part, new / part)
        for path in (new, *new.rglob("*")):
            runnable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if runnable else 0o644)
        with contextlib.suppress(OSError):  # another service has made it meanwhile
            new.rename(copy)
