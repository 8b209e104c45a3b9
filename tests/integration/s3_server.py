"""moto's S3 as a real HTTP server on loopback, with faults that a test can ask for."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class Call:
    """A request as the server got it."""

    method: str
    path: str
    query: str

    @property
    def writes(self) -> bool:
        return self.method in {"PUT", "POST", "DELETE"}


@dataclass
class S3Server:
    """The server.

    Attributes:
        url: Its endpoint.
        calls: What it was asked, in order.
        refuse: Asked for each call: the status and S3 code of an error to answer instead, or None.
        ignored: Names of headers that it shall not see, as of the WSGI environment.
    """

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    refuse: Callable[[Call], tuple[int, str] | None] = lambda _call: None
    ignored: tuple[str, ...] = ()

    @property
    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.url)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        found = self.client.list_objects_v2(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for item in found.get("Contents", [])]

    def reset(self) -> None:
        """No faults, no memory of calls."""
        self.calls.clear()
        self.refuse, self.ignored = lambda _call: None, ()


def read_only(call: Call) -> tuple[int, str] | None:
    return (403, "AccessDenied") if call.writes else None


class Failing:
    """503 to the first calls that fit, then nothing."""

    def __init__(self, times: int, fits: Callable[[Call], bool] = lambda _call: True) -> None:
        self.left = times
        self._fits = fits

    def __call__(self, call: Call) -> tuple[int, str] | None:
        if not self.left or not self._fits(call):
            return None
        self.left -= 1
        return 503, "ServiceUnavailable"


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """The server, with credentials for it in the environment while it runs."""
    server = S3Server()
    inner = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        call = Call(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"])
        server.calls.append(call)
        refused = server.refuse(call)
        if refused is not None:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            status, code = refused
            start_response(f"{status} {code}", [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>asked for by the test</Message></Error>".encode()]
        for name in server.ignored:
            environ.pop(name, None)
        return inner(environ, start_response)

    http = make_server("127.0.0.1", 0, application, threaded=True)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in CREDENTIALS.items():
                patch.setenv(name, value)
            yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
