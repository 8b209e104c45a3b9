"""`/files`: datasets and models to choose from; upload a dataset, delete an upload."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request, status

from app.core.contracts.schema import Text  # noqa: TC001 - FastAPI reads the annotations
from app.files import uploads
from app.files.found import look
from app.files.schemas import (
    EXAMPLE_DIGEST,
    EXAMPLE_FILES,
    EXAMPLE_UPLOAD,
    FileResponse,
    FilesResponse,
    UploadResponse,
)
from app.http.dependencies import ArtifactsDep, SessionDep, SettingsDep  # noqa: TC001
from app.http.openapi import empty, example, problems
from app.http.problems import BodyTooLarge, InvalidRequest, TooLargeForQuota, UploadInUse, UploadNotFound

router = APIRouter(prefix="/files", tags=["datasets"])

FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file itself, as with `curl --data-binary @tickets.jsonl`.",
        "content": {
            "application/octet-stream": {
                "schema": {"type": "string", "format": "binary"},
                "examples": {"rows": {"value": '{"prompt": "2+2?", "response": "4"}\n'}},
            }
        },
    }
}
QUOTA_USED_UP = (
    "body: has 95365 bytes, the project's other uploaded files 21474800000, and 21474836480 is what they may have "
    "together: ..."
)
TOO_LARGE = "body: has at least 1073741825 bytes, and 1073741824 are what an uploaded file may have: ..."


@router.get(
    "", summary="List datasets and models to choose from", responses=example(200, "What was found.", EXAMPLE_FILES)
)
def files(session: SessionDep, settings: SettingsDep, artifacts: ArtifactsDep) -> FilesResponse:
    """What lies in `SPICE_ALLOWED_ROOTS`, without hidden files and links that lead out, and what was uploaded.

    Of the directories this tells what this process sees; workers may see others.
    """
    found, kept = look(settings), uploads.listed(session, artifacts)
    return FilesResponse(
        datasets=[FileResponse.model_validate(place) for place in found.datasets],
        models=[FileResponse.model_validate(place) for place in found.models],
        uploads=[UploadResponse.model_validate(one) for one in kept[: uploads.MOST_TOLD]],
        complete=found.complete and len(kept) <= uploads.MOST_TOLD,
    )


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Upload a dataset",
    openapi_extra=FILE_BODY,
    responses=example(201, "The file is kept.", EXAMPLE_UPLOAD)
    | problems(
        (TooLargeForQuota, QUOTA_USED_UP),
        (BodyTooLarge, TOO_LARGE),
        (InvalidRequest, "name: 'tickets.exe' does not tell the format: it should end in one of .jsonl, ..."),
    ),
)
async def upload(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    artifacts: ArtifactsDep,
    name: Annotated[
        Text, Query(max_length=1000, description="The file's name; its suffix says the format.", examples=["rows.csv"])
    ],
) -> UploadResponse:
    """Keep a file of rows, whose `uri` a job may then name as `dataset.uri`.

    The body is the file itself. The same file again is kept once. `SPICE_UPLOADS_MAX_AGE_S` says how long it is kept.
    """
    incoming = await to_thread.run_sync(uploads.begin, session, settings, artifacts, name, _length(request))
    try:
        async for chunk in request.stream():
            if incoming.take(chunk):
                await to_thread.run_sync(incoming.flush)
        return UploadResponse.model_validate(
            await to_thread.run_sync(uploads.keep, session, settings, artifacts, incoming)
        )
    finally:
        await to_thread.run_sync(incoming.close)


def _length(request: Request) -> int:
    said = request.headers.get("content-length", "")
    return int(said) if said.isdecimal() else 0


@router.delete(
    "/{upload_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Delete an uploaded file",
    responses=empty(204, "It is gone.")
    | problems(
        (UploadNotFound, f"The project has no uploaded file {EXAMPLE_DIGEST}: see GET /files."),
        (UploadInUse, f"{EXAMPLE_UPLOAD['name']} is read by a job or a proof that has not ended: cancel it, or wait."),
    ),
)
def delete(
    session: SessionDep,
    artifacts: ArtifactsDep,
    upload_id: Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the content.")],
) -> None:
    """Delete a file that was uploaded. Jobs that have ended keep their results and their picked rows."""
    uploads.delete(session, artifacts, upload_id)
