"""What can go wrong, as exceptions. A problem document (RFC 9457) of the service keeps its type, detail and fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

if TYPE_CHECKING:
    from spice_client.models import Job, Proof

BODY_SHOWN = 200
FIRST_FAULT = 500
TRANSIENT = frozenset({429, 502, 503, 504})
UNDER_WAY = "idempotency-key-in-use"
"""Of a request that was sent again while the service still carries it out: its answer is to come."""


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One field of a request that is at fault."""

    field: str
    message: str


class SpiceError(Exception):
    """Whatever the client raises on its own account. `document` is a problem document (RFC 9457)."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(document.get("detail") or document.get("title"))
        self.document = document

    @property
    def title(self) -> str:
        """What kind of error this is."""
        return str(self.document.get("title") or "Error")

    @property
    def detail(self) -> str | None:
        """What happened this time, and what to do."""
        return self.document.get("detail")

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed in a while."""
        return False

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the service wants to be asked again, where it said so."""
        return None


class ServiceUnreachable(SpiceError):
    """The service gave no whole answer: it is down, away, or the connection broke."""

    def __init__(self, url: str, cause: httpx.HTTPError) -> None:
        why = str(cause) or type(cause).__name__
        detail = (
            f"{url} does not answer ({why}): is it running (`spice serve`), and is the URL right?{_proxy_words(url)}"
        )
        super().__init__({"title": "The service cannot be reached", "detail": detail})
        self.cause = cause

    @property
    def transient(self) -> bool:
        """A connection that fails may succeed later; a URL of another scheme may not."""
        return not isinstance(self.cause, httpx.UnsupportedProtocol)

    @property
    def refused(self) -> bool:
        """Whether no connection came about, so that the service can't have seen the request."""
        return isinstance(self.cause, httpx.ConnectError | httpx.ConnectTimeout)


class NotTheService(SpiceError):
    """Something answered, but not as the service does."""

    def __init__(self, response: httpx.Response, what: str = "did not answer with JSON") -> None:
        detail = f"{response.request.url} {what}: is the URL that of the service?"
        super().__init__({"title": "This is not the service", "detail": detail})


class UrlInvalid(SpiceError):
    """The service's URL is none."""

    def __init__(self, url: str, why: object) -> None:
        super().__init__({"title": "The service's URL is not valid", "detail": f"{url}: {why}"})


class KeyInvalid(SpiceError):
    """The API key can't be one, and no message repeats it."""

    def __init__(self) -> None:
        detail = "it has white space or characters beyond ASCII, which no key has: copy it again (SPICE_API_KEY)"
        super().__init__({"title": "The API key is not valid", "detail": detail})


class IdempotencyKeyInvalid(SpiceError):
    """The name that a submission was given can't be sent."""

    def __init__(self, key: str) -> None:
        detail = f"{key!r}: give 1 to 255 printable ASCII characters without spaces around them, such as a UUID"
        super().__init__({"title": "The idempotency key is not valid", "detail": detail})


class Refused(SpiceError):
    """The service answered with an error.

    Attributes:
        status: HTTP status.
        document: The problem document.
    """

    statuses: ClassVar[tuple[int, ...]] = ()

    def __init__(self, status: int, document: dict[str, Any], retry_after: float | None = None) -> None:
        super().__init__(document)
        self.status = status
        self._retry_after = retry_after

    @property
    def type(self) -> str | None:
        """Stable identifier of the kind of error, such as `invalid-request`."""
        return self.document.get("type")

    @property
    def errors(self) -> list[FieldFault]:
        """The fields at fault."""
        return [FieldFault(str(one.get("field")), str(one.get("message"))) for one in self.document.get("errors") or []]

    @property
    def field(self) -> str | None:
        """The first field at fault, such as `selection.budget.fraction`."""
        return self.errors[0].field if self.errors else None

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed in a while."""
        return self.status in TRANSIENT or self.type == UNDER_WAY

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the service wants to be asked again, where it said so."""
        return self._retry_after


class InvalidRequest(Refused):
    """The request can't be carried out as it is; `errors` names the fields."""

    statuses = (400, 422)


class NotAuthenticated(Refused):
    """The API key is missing or not known."""

    statuses = (401,)


class NotAllowed(Refused):
    """The API key does not cover this."""

    statuses = (403,)


class NotFound(Refused):
    """There is no such thing, or not any more."""

    statuses = (404, 410)


class Conflict(Refused):
    """The state of the job does not allow it: not ended yet, or ended already."""

    statuses = (409, 412)


class TooManyRequests(Refused):
    """A quota or a rate limit is used up."""

    statuses = (429,)


class ServiceFault(Refused):
    """The service failed, or cannot serve for now."""


class JobUnsuccessful(SpiceError):
    """A job that was waited for has ended without a subset.

    Attributes:
        job: The job in its last state.
    """

    def __init__(self, job: Job, document: dict[str, Any]) -> None:
        super().__init__(document)
        self.job = job


class JobFailed(JobUnsuccessful):
    """The job failed; `document` is its error."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, job.error.document() if job.error else {"title": "The job failed"})


class JobCancelled(JobUnsuccessful):
    """The job was cancelled."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, {"title": "The job was cancelled", "detail": f"Job {job.id} was cancelled."})


class ProofFailed(SpiceError):
    """The proof failed or was cancelled; `proof` is it as it was then."""

    def __init__(self, proof: Proof) -> None:
        self.proof = proof
        super().__init__(proof.error.document() if proof.error else {"title": f"The proof is {proof.state}"})


class WaitTimedOut(SpiceError):
    """A job has not ended within the time that it was waited for. It goes on."""

    def __init__(self, job_id: str, seconds: float) -> None:
        detail = f"Job {job_id} has not ended within {seconds:g} s; it goes on, and can be waited for again."
        super().__init__({"title": "The job takes longer", "detail": detail})


class PackageMissing(SpiceError):
    """An optional package is not installed."""

    def __init__(self, package: str, purpose: str) -> None:
        super().__init__(
            {"title": "A package is missing", "detail": f"{purpose} needs {package}: pip install {package}"}
        )


def refusal_of(response: httpx.Response) -> Refused:
    """The exception for an answer that is an error; its document is the answer's own, if it has one."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict) or "title" not in document:
        detail = (
            f"{response.request.url} did not answer as the service does: is the URL that of the service? It says: "
            f"{' '.join(response.text.split())[:BODY_SHOWN]}"
        )
        document = {"title": f"{response.status_code} {response.reason_phrase}", "detail": detail}
    status = response.status_code
    fitting = [kind for kind in Refused.__subclasses__() if status in kind.statuses]
    kind = fitting[0] if fitting else ServiceFault if status >= FIRST_FAULT else Refused
    return kind(status, document, _seconds(response.headers.get("Retry-After")))


def _seconds(retry_after: str | None) -> float | None:
    """Of a `Retry-After` in seconds, which is the form that this service sends; a date is left to the back-off."""
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else None


def _proxy_words(url: str) -> str:
    """Which variable sent a request to a proxy, and how to ask the service itself; empty where none did."""
    parts, proxies = urlsplit(url), getproxies()
    name = next((name for name in (parts.scheme, "all") if proxies.get(name)), None)
    if name is None or not parts.hostname or proxy_bypass(parts.hostname):
        return ""
    return f" It was asked through the proxy of {name.upper()}_PROXY: NO_PROXY={parts.hostname} asks it directly."
