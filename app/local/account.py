"""The system account that the embedded servers run as when the service itself runs as root."""

from __future__ import annotations

import logging
import os
import pwd
import stat
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

if TYPE_CHECKING:
    from pathlib import Path

NAME = "spice_servers"
FALLBACK = "nobody"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Account:
    """A system account: the ids that a server process takes on."""

    uid: int
    gid: int


def account_for(directory: Path) -> Account | None:
    """The account to run a server as whose data is in `directory`; None to stay as we are.

    PostgreSQL refuses to run as root. Existing data keeps its owner; new data gets an account of its own.

    Args:
        directory: The server's data directory; need not exist.

    Returns:
        None unless this process is root.

    Raises:
        PermissionError: The directory belongs to someone else and this process is not root.
    """
    owner = directory.stat() if directory.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise PermissionError(
                f"{directory} belongs to user {owner.st_uid} and this is user {os.geteuid()}: "
                "run as that user or as root, or choose another directory with --data-dir"
            )
        return None
    if owner is not None and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    entry = _own_account()
    return Account(entry.pw_uid, entry.pw_gid)


def _own_account() -> pwd.struct_passwd:
    """Find the servers' account, made on first use; `nobody` where accounts cannot be made."""
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        pass
    try:
        _add_account()
        return pwd.getpwnam(NAME)
    except (OSError, subprocess.CalledProcessError, KeyError) as error:
        log.warning("no account %r could be made (%s): the servers run as %r", NAME, error, FALLBACK)
        return pwd.getpwnam(FALLBACK)


@retry(
    retry=retry_if_exception_type(subprocess.CalledProcessError),
    stop=stop_after_attempt(5),
    wait=wait_random(0.1, 0.5),  # two services that start at once: one of them holds the lock of /etc/passwd
    reraise=True,
)
def _add_account() -> None:
    already_there = 9
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", NAME]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - fixed words
    if done.returncode not in (0, already_there):
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)


def give(directory: Path, account: Account | None) -> None:
    """Make a directory for the account alone (or, without one, for us alone), and the way to it passable."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    if account is not None:
        os.chown(directory, account.uid, account.gid)
        _open_way(directory)


def let_run(program: Path, account: Account | None) -> None:
    """See to it that the account can run a program that was installed for root alone."""
    if account is None:
        return
    home = program.parent.parent
    _open_way(home)
    if stat.S_IMODE(program.stat().st_mode) & 0o005 == 0o005:  # noqa: PLR2004 - readable and runnable by others
        return
    for place in [home, *home.rglob("*")]:
        mode = stat.S_IMODE(place.stat().st_mode)
        runnable = place.is_dir() or mode & stat.S_IXUSR
        place.chmod(mode | 0o004 | (0o001 if runnable else 0))


def _open_way(place: Path) -> None:
    """Let the account pass through the directories above `place`: search permission alone, no listing."""
    for above in place.resolve().parents:
        mode = stat.S_IMODE(above.stat().st_mode)
        if not mode & stat.S_IXOTH:
            log.warning("chmod o+x %s: the servers' account must pass through it to reach %s", above, place)
            above.chmod(mode | stat.S_IXOTH)
