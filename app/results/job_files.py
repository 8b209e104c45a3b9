"""The files of a finished job in the artifact store. A worker makes again what is damaged of them."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends
from sqlalchemy import func, or_, select
from sqlalchemy.dialects.postgresql import insert

from app.core.db.engine import Sessions  # noqa: TC001
from app.core.db.scoping import project_of
from app.core.db.tables import Repair, State
from app.core.lifecycle.leases import Waiting
from app.core.queue import TaskQueue  # noqa: TC001
from app.core.storage import ArtifactStore, Damaged, StorageFailed, open_checked
from app.http.dependencies import ArtifactsDep, QueueDep, WritingSessionsDep  # noqa: TC001
from app.http.problems import RowsDamaged, RowsGone, RowsInRepair, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from app.core.db.tables import Json
    from app.core.storage import Stored

FAILED_FOR = timedelta(minutes=10)
"""How long a repair that has failed is not tried again."""


@dataclass(frozen=True, slots=True)
class JobFiles:
    """The files of one job.

    Attributes:
        job_id: The job; it has succeeded.
        artifacts: Where its files are.
        sessions: Sessions that write.
        queue: Where a repair is put.
    """

    job_id: uuid.UUID
    artifacts: ArtifactStore
    sessions: Sessions
    queue: TaskQueue

    @contextmanager
    def looked_at(self) -> Iterator[None]:
        """A block that reads files: a failure of the store, and damage, end as the problem that a client is told.

        Raises:
            RowsInRepair: A file is damaged, and is being made again.
            RowsDamaged: A file is damaged, and could not be made again.
            Unavailable: The store does not answer.
        """
        try:
            yield
        except Damaged as error:
            failure = self._ask_for_repair()
            if failure is None:
                raise RowsInRepair(str(error)) from error
            raise RowsDamaged(str(error), str(failure.get("detail") or failure["title"])) from error
        except StorageFailed as error:
            raise Unavailable(str(error)) from error

    def stored(self, name: str, what: str = "rows") -> Stored:
        """What the store tells of a file.

        Args:
            name: The file's name in the store.
            what: What it holds, in the words of a problem.

        Raises:
            RowsGone: The store does not have it any more.
        """
        found = self.artifacts.stat(name)
        if found is None:
            raise RowsGone(f"The {what} of job {self.job_id} are not in the artifact store any more; its indices are.")
        return found

    @contextmanager
    def opened(self, name: str, what: str = "rows") -> Iterator[tuple[BinaryIO, int]]:
        """A file as a stream that can seek, and its size in bytes; the problems are those of `stored`, `looked_at`."""
        with self.looked_at():
            size = self.stored(name, what).size
            with open_checked(self.artifacts, name, size) as stream:
                yield stream, size

    def streamed(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Pieces of a file; damage breaks them off, and has the file made again."""
        try:
            yield from pieces
        except Damaged:
            self._ask_for_repair()
            raise

    def _ask_for_repair(self) -> Json | None:
        """Queue a repair, unless one is open or has failed a moment ago.

        Returns:
            Why it has failed; None where it goes on.
        """
        ended = or_(
            Repair.state.in_((State.SUCCEEDED, State.CANCELLED)),
            (Repair.state == State.FAILED) & (Repair.finished_at < func.now() - FAILED_FOR),
        )
        anew = {
            "state": State.QUEUED,
            "dispatch": Repair.dispatch + 1,
            "queued_at": func.now(),
            "crashes": 0,
            "error": None,
            "finished_at": None,
            "cancel_requested_at": None,
        }
        with self.sessions() as session:
            asked = insert(Repair).values(
                id=uuid.uuid4(), job_id=self.job_id, project_id=project_of(session), state=State.QUEUED
            )
            queued = session.execute(
                asked.on_conflict_do_update(index_elements=[Repair.job_id], set_=anew, where=ended).returning(
                    Repair.id, Repair.dispatch
                )
            ).one_or_none()
            failure = session.scalar(
                select(Repair.error).where(Repair.job_id == self.job_id, Repair.state == State.FAILED)
            )
            session.commit()
        if queued is not None:
            self.queue.put_or_leave([Waiting(Repair, queued.id, queued.dispatch)])
        return failure


async def _job_files(
    job_id: uuid.UUID, artifacts: ArtifactsDep, sessions: WritingSessionsDep, queue: QueueDep
) -> JobFiles:
    return JobFiles(job_id, artifacts, sessions, queue)


JobFilesDep = Annotated[JobFiles, Depends(_job_files)]
