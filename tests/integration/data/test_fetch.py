"""Fetching from real places: the file system, an HTTPS server with its own authority, an S3-compatible server."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import ssl
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
import trustme
from moto.server import ThreadedMotoServer

from app.core.storage import open_artifacts
from app.core.uris.addresses import is_public
from app.core.uris.datasets import DatasetUri, check_uri
from app.core.uris.uploads import Upload
from tests.integration.deadlines import soon
from tests.integration.models.hub_server import hub_server
from workers.data import fetch as fetch_module
from workers.data.errors import DatasetError
from workers.data.fetch import Snapshot, fetch
from workers.data.fetch_ranges import RangesNotThere, fetched_ranges
from workers.data.ranges import Cut
from workers.data.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.core.settings import Settings
    from tests.own_directory import SettingsFactory

CONTENT = b'{"prompt": "p", "response": "r"}\n' * 100_000
NAME = "data.example.org"


def refused(uri: DatasetUri, settings: Settings) -> tuple[str, str]:
    with pytest.raises(DatasetError) as caught:
        fetch(uri, settings)
    assert left_behind(settings) == []
    return caught.value.reason_code, caught.value.message


def left_behind(settings: Settings) -> list[str]:
    return [path.name for path in (settings.cache_path / "datasets").iterdir() if path.name.startswith(".")]


class TestFile:
    def test_a_snapshot_is_named_by_its_content(self, root: Path, settings: Settings) -> None:
        path = root / "a.jsonl"
        path.write_bytes(CONTENT)
        snapshot = fetch(check_uri(path.as_uri(), settings), settings)
        digest = hashlib.sha256(CONTENT).hexdigest()
        assert snapshot.path == settings.cache_path / "datasets" / f"{digest}.jsonl"
        assert snapshot.path.read_bytes() == CONTENT
        assert (snapshot.fingerprint, snapshot.bytes) == (f"sha256:{digest}", len(CONTENT))
        path.write_bytes(b"changed")
        assert snapshot.path.read_bytes() == CONTENT
        assert fetch(check_uri(path.as_uri(), settings), settings).fingerprint != snapshot.fingerprint
        assert left_behind(settings) == []

    def test_progress_and_stop(self, root: Path, settings: Settings) -> None:
        path = root / "a.jsonl"
        path.write_bytes(CONTENT)
        seen: list[tuple[int, int | None]] = []
        uri = check_uri(path.as_uri(), settings)
        fetch(uri, settings, on_bytes=lambda done, total: seen.append((done, total)))
        assert seen[-1] == (len(CONTENT), len(CONTENT))
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        with pytest.raises(Stopped):
            fetch(uri, settings, should_stop=lambda: True)
        assert left_behind(settings) == []

    def test_a_missing_file(self, root: Path, settings: Settings) -> None:
        code, message = refused(check_uri(f"{root.as_uri()}/gone.jsonl", settings), settings)
        assert code == "missing"
        assert "gone.jsonl does not exist" in message
        (root / "file").write_text("")
        assert refused(check_uri(f"{root.as_uri()}/file/a.jsonl", settings), settings)[0] == "missing"

    def test_a_file_that_may_not_be_read(self, root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        path = root / "a.jsonl"
        path.write_text("{}")
        uri = check_uri(path.as_uri(), settings)
        path.chmod(0)
        if os.geteuid() == 0:  # root may read everything: the kernel's answer has to be played

            def step(directory: int, name: str, flags: int) -> int:  # noqa: ARG001
                os.close(directory)
                raise PermissionError(13, "Permission denied")

            monkeypatch.setattr(fetch_module, "_step", step)
        assert refused(uri, settings)[0] == "no_permission"

    def test_what_is_no_regular_file(self, root: Path, settings: Settings) -> None:
        os.mkfifo(root / "fifo.jsonl")
        assert refused(check_uri(f"{root.as_uri()}/fifo.jsonl", settings), settings)[0] == "not_a_file"
        with socket.socket(socket.AF_UNIX) as server:
            here = os.open(root, os.O_RDONLY)  # a socket's path may be no longer than about 100 bytes
            try:
                server.bind(f"/proc/self/fd/{here}/s.jsonl" if Path("/proc/self/fd").exists() else "s.jsonl")
            finally:
                os.close(here)
            code, _ = refused(check_uri(f"{root.as_uri()}/s.jsonl", settings), settings)
            assert code in {"not_a_file", "unreachable"}

    def test_a_link_put_there_after_the_check(self, root: Path, settings: Settings, tmp_path: Path) -> None:
        secret = tmp_path / "secret.jsonl"
        secret.write_text("secret")
        (root / "sub").mkdir()
        (root / "sub" / "secret.jsonl").write_text("{}")
        uri = check_uri(f"{root.as_uri()}/sub/secret.jsonl", settings)
        (root / "sub" / "secret.jsonl").unlink()
        (root / "sub" / "secret.jsonl").symlink_to(secret)
        assert refused(uri, settings)[0] == "uri_refused"

    @pytest.mark.parametrize("swapped", ["sub", "sub/secret.jsonl"])
    def test_a_link_swapped_in_between_check_and_open(
        self, root: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
    ) -> None:
        (tmp_path / "secret.jsonl").write_text("secret")
        (root / "sub").mkdir()
        (root / "sub" / "secret.jsonl").write_text("{}")
        uri = check_uri(f"{root.as_uri()}/sub/secret.jsonl", settings)

        def check_then_swap(*_: object) -> DatasetUri:
            (root / swapped).rename(tmp_path / "moved")
            (root / swapped).symlink_to(tmp_path if swapped == "sub" else tmp_path / "secret.jsonl")
            return uri

        monkeypatch.setattr(fetch_module, "check_uri", check_then_swap)
        with pytest.raises(DatasetError) as caught:
            fetch(uri, settings)
        assert caught.value.reason_code in {"unreachable", "missing"}
        assert not list((settings.cache_path / "datasets").iterdir())

    def test_the_limits_of_size_and_time(self, root: Path, make_settings: SettingsFactory) -> None:
        path = root / "a.jsonl"
        path.write_bytes(CONTENT)
        uri = check_uri(path.as_uri(), make_settings())
        code, message = refused(uri, make_settings(dataset_max_bytes=1000))
        assert code == "too_large"
        assert "the limit is 1,000" in message
        assert "SPICE_DATASET_MAX_BYTES" in message
        assert refused(uri, make_settings(fetch_timeout_s=1e-9))[0] == "timed_out"

    def test_a_cache_that_cannot_be_written(self, root: Path, make_settings: SettingsFactory) -> None:
        (root / "a.jsonl").write_text("{}")
        (root / "cache").write_text("a file where a directory should be")
        settings = make_settings(cache_dir=root / "cache")
        with pytest.raises(DatasetError, match="SPICE_CACHE_DIR") as caught:
            fetch(check_uri((root / "a.jsonl").as_uri(), settings), settings)
        assert caught.value.reason_code == "cache_not_writable"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path: /a.jsonl the content, /status/503 that status, /redirect?to=... a redirect, ..."""

    flaky_answers = 0
    seen: list[str]
    parts: list[tuple[int, int]]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        path, _, query = self.path.partition("?")
        if path.startswith("/redirect"):
            self._answer(302, b"", Location=query.removeprefix("to="))
        elif path.startswith("/loop"):
            self._answer(302, b"", Location="/loop")
        elif path.startswith("/status"):
            self._answer(int(path.split("/")[2].split(".")[0]), b"no")
        elif path.startswith("/flaky") and len(self.seen) <= self.flaky_answers:
            self._answer(503, b"")
        elif path.startswith("/cut"):
            self._answer(200, CONTENT, length=len(CONTENT) + 1000)
            self.close_connection = True
        elif path.startswith("/endless"):
            self._endless()
        elif path.startswith("/stalled"):
            self.send_response(200)
            self.end_headers()
            time.sleep(3)
        elif path.startswith("/ranged") and (wanted := self.headers.get("Range")):
            first, last = (int(place) for place in wanted.removeprefix("bytes=").split("-"))
            self.parts.append((first, last + 1))
            self._answer(206, CONTENT[first : last + 1])
        else:
            self._answer(200, CONTENT)

    def _answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"{}\n" * 10_000)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[http.server.ThreadingHTTPServer]:
    """An HTTPS server on loopback; NAME resolves to it and its authority is trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME, "127.0.0.1").configure_cert(context)
    Handler.seen, Handler.parts, Handler.flaky_answers = [], [], 0
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    running.handle_error = lambda *_: None  # type: ignore[method-assign]
    running.socket = context.wrap_socket(running.socket, server_side=True)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    resolve = socket.getaddrinfo

    def resolve_name(host: str, *arguments: object, **options: object) -> object:
        return resolve("127.0.0.1" if host == NAME else host, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(socket, "getaddrinfo", resolve_name)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def loopback_counts_as_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 alone, so that the guard is in place and other private addresses are still refused."""
    monkeypatch.setattr(
        "app.core.uris.addresses.is_public", lambda address: address == "127.0.0.1" or is_public(address)
    )


def at(server: http.server.ThreadingHTTPServer, path: str, settings: Settings) -> DatasetUri:
    return check_uri(f"https://{NAME}:{server.server_port}{path}", settings, "jsonl")


@pytest.mark.usefixtures("loopback_counts_as_public")
class TestHttps:
    def test_a_file(self, server: http.server.ThreadingHTTPServer, settings: Settings) -> None:
        seen: list[tuple[int, int | None]] = []
        snapshot = fetch(
            at(server, "/a%20b.jsonl?sig=x%2By", settings),
            settings,
            on_bytes=lambda done, total: seen.append((done, total)),
        )
        assert snapshot.path.read_bytes() == CONTENT
        assert seen[-1] == (len(CONTENT), len(CONTENT))
        assert Handler.seen == ["/a%20b.jsonl?sig=x%2By"]  # one request, its signature untouched

    def test_redirects_are_followed_a_few_times(
        self, server: http.server.ThreadingHTTPServer, settings: Settings
    ) -> None:
        assert fetch(at(server, "/redirect?to=/a.jsonl", settings), settings).bytes == len(CONTENT)
        Handler.seen.clear()
        assert refused(at(server, "/loop", settings), settings)[0] == "http_status"
        assert len(Handler.seen) == fetch_module.MAX_REDIRECTS

    @pytest.mark.parametrize(
        "target",
        [
            "https://127.0.0.2/a.jsonl",
            "https://10.0.0.1/a.jsonl",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/a.jsonl",
            "https://[::ffff:127.0.0.2]/a.jsonl",
            "https://0x7f.2/a.jsonl",
            "//192.168.0.1/a.jsonl",
        ],
    )
    def test_a_redirect_to_a_private_address_is_refused(
        self, server: http.server.ThreadingHTTPServer, settings: Settings, target: str
    ) -> None:
        code, message = refused(at(server, f"/redirect?to={target}", settings), settings)
        assert code == "address_refused"
        assert "not a public address" in message
        assert target not in message, "the query of a presigned URL is a password"

    def test_a_redirect_away_from_https_is_refused(
        self, server: http.server.ThreadingHTTPServer, settings: Settings
    ) -> None:
        target = f"http://{NAME}:{server.server_port}/a.jsonl"
        code, message = refused(at(server, f"/redirect?to={target}", settings), settings)
        assert code == "uri_refused"
        assert "not https" in message
        code, message = refused(at(server, "/redirect?to=file:///etc/passwd?sig=secret", settings), settings)
        assert code == "unreachable"
        assert "secret" not in message

    def test_a_name_that_changes_its_address_between_check_and_use(
        self, server: http.server.ThreadingHTTPServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = at(server, "/a.jsonl", settings)
        fetch(uri, settings)
        monkeypatch.setattr("app.core.uris.addresses.is_public", is_public)  # now 127.0.0.1 is what it is
        code, message = refused(uri, settings)
        assert code == "address_refused"
        assert "127.0.0.1" in message
        assert len(Handler.seen) == 1

    def test_statuses(self, server: http.server.ThreadingHTTPServer, settings: Settings) -> None:
        for status in (204, 206, 302, 304):  # no error to HTTP, and no file either
            assert refused(at(server, f"/status/{status}.jsonl", settings), settings)[0] == "http_status"
        Handler.seen.clear()
        assert refused(at(server, "/status/404.jsonl", settings), settings)[0] == "missing"
        assert len(Handler.seen) == 1  # which no retry would mend
        code, message = refused(at(server, "/status/403.jsonl?sig=secret", settings), settings)
        assert code == "http_status"
        assert "403" in message
        assert "secret" not in message
        Handler.seen.clear()
        assert refused(at(server, "/status/503.jsonl", settings), settings)[0] == "http_status"
        assert len(Handler.seen) == fetch_module.ATTEMPTS

    def test_a_fault_that_passes_is_retried(self, server: http.server.ThreadingHTTPServer, settings: Settings) -> None:
        Handler.flaky_answers = 2
        assert fetch(at(server, "/flaky.jsonl", settings), settings).bytes == len(CONTENT)
        assert len(Handler.seen) == 3

    def test_an_answer_cut_short_is_no_dataset(
        self, server: http.server.ThreadingHTTPServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fetch_module, "ATTEMPTS", 2)
        assert refused(at(server, "/cut.jsonl", settings), settings)[0] == "unreachable"

    def test_an_endless_answer_is_stopped_by_the_limit(
        self, server: http.server.ThreadingHTTPServer, make_settings: SettingsFactory
    ) -> None:
        settings = make_settings(dataset_max_bytes=5_000_000)
        assert refused(at(server, "/endless.jsonl", settings), settings)[0] == "too_large"
        assert refused(at(server, "/a.jsonl", settings), make_settings(dataset_max_bytes=10))[0] == "too_large"

    def test_a_stalled_answer_is_stopped_by_the_clock(
        self, server: http.server.ThreadingHTTPServer, make_settings: SettingsFactory
    ) -> None:
        settings = make_settings(fetch_timeout_s=0.5)
        started = time.monotonic()
        assert refused(at(server, "/stalled.jsonl", settings), settings)[0] == "timed_out"
        assert time.monotonic() - started < soon(2.5)

    def test_a_certificate_nobody_vouches_for(
        self, server: http.server.ThreadingHTTPServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        code, message = refused(at(server, "/a.jsonl", settings), settings)
        assert code == "unreachable"
        assert "certificate" in message.lower()

    def test_a_server_that_is_not_there(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fetch_module, "ATTEMPTS", 2)
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        private = settings.model_copy(update={"https_allow_private": True})
        uri = check_uri(f"https://127.0.0.1:{port}/a.jsonl", private)
        assert refused(uri, private)[0] == "unreachable"


def cut_of(content: bytes, settings: Settings) -> Cut:
    """The content, cut into four ranges."""
    path = settings.cache_path / "content"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    snapshot = Snapshot(path, "jsonl", None, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")
    cut = Cut.of(snapshot, settings, len(content) // 4, ["prompt", "response"], {"prompt", "response"})
    assert len(cut.groups) == 4
    return cut


def range_fetched(uri: DatasetUri, cut: Cut, settings: Settings) -> tuple[slice, bytes]:
    """The second range of a cut, as it is fetched, and where it is in the file."""
    (span,) = cut.groups[1][0].spans
    part = slice(span.start, span.end)
    with fetched_ranges(uri, cut, cut.groups[1], settings, lambda: False) as there:
        found = there.parts[0].path.read_bytes()[part]
    assert left_behind(settings) == []
    return part, found


@pytest.mark.usefixtures("loopback_counts_as_public")
class TestRanges:
    def test_a_server_is_asked_for_the_bytes_of_the_range_alone(
        self, server: http.server.ThreadingHTTPServer, settings: Settings
    ) -> None:
        part, found = range_fetched(at(server, "/ranged.jsonl", settings), cut_of(CONTENT, settings), settings)
        assert found == CONTENT[part]
        assert [start for start, _ in Handler.parts] == [part.start]
        assert [end for _, end in Handler.parts] == [part.stop]

    @pytest.mark.parametrize(
        "path", ["/a.jsonl", "/endless.jsonl", "/status/404.jsonl", "/redirect?to=https://10.0.0.1/"]
    )
    def test_a_server_that_gives_no_ranges_is_left_to_a_whole_fetch(
        self, server: http.server.ThreadingHTTPServer, settings: Settings, path: str
    ) -> None:
        with pytest.raises(RangesNotThere):
            range_fetched(at(server, path, settings), cut_of(CONTENT, settings), settings)

    def test_ranges_of_an_object(self, s3_server: str, make_settings: SettingsFactory) -> None:
        settings = make_settings(s3_endpoint_url=s3_server, s3_buckets=("train",))
        uri = DatasetUri("s3", "s3://train/a b/ü.jsonl", "jsonl", None)
        part, found = range_fetched(uri, cut_of(CONTENT * 5, settings), settings)
        assert found == (CONTENT * 5)[part]
        with pytest.raises(RangesNotThere, match="are others"):
            range_fetched(uri, cut_of(b" " + CONTENT * 5, settings), settings)

    def test_ranges_of_an_uploaded_file(self, settings: Settings) -> None:
        upload = Upload(uuid.uuid4(), hashlib.sha256(CONTENT).hexdigest(), "a.jsonl")
        open_artifacts(settings).write(upload.artifact, CONTENT)
        part, found = range_fetched(check_uri(upload.uri, settings), cut_of(CONTENT, settings), settings)
        assert found == CONTENT[part]

    def test_ranges_of_a_file_on_a_hub(self, make_settings: SettingsFactory) -> None:
        commit = "0123456789abcdef0123456789abcdef01234567"
        with hub_server() as hub:
            settings = make_settings(hub_datasets=("org/*",), hub_url=hub.url)
            hub.datasets["org/set", commit] = {"a.jsonl": CONTENT, "README.md": b"#"}
            uri = check_uri(f"hf://datasets/org/set@{commit}", settings)
            part, found = range_fetched(uri, cut_of(CONTENT, settings), settings)
            assert found == CONTENT[part]


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """An S3-compatible server with a bucket ``train``."""
    patch = pytest.MonkeyPatch()
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1"}.items():
        patch.setenv(f"AWS_{name}", value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket="train")
    client.put_object(Bucket="train", Key="a b/ü.jsonl", Body=CONTENT * 5)
    yield url
    server.stop()
    patch.undo()


class TestS3:
    def test_an_object(self, s3_server: str, make_settings: SettingsFactory) -> None:
        settings = make_settings(s3_endpoint_url=s3_server, s3_buckets=("train",))
        seen: list[tuple[int, int | None]] = []
        uri = DatasetUri("s3", "s3://train/a b/ü.jsonl", "jsonl", None)
        snapshot = fetch(uri, settings, on_bytes=lambda done, total: seen.append((done, total)))
        assert snapshot.path.read_bytes() == CONTENT * 5
        assert seen[-1] == (len(CONTENT) * 5, len(CONTENT) * 5)

    def test_what_is_not_there(self, s3_server: str, make_settings: SettingsFactory) -> None:
        settings = make_settings(s3_endpoint_url=s3_server, s3_buckets=("train", "gone"))
        for uri in ("s3://train/gone.jsonl", "s3://gone/a.jsonl"):
            assert refused(check_uri(uri, settings), settings)[0] == "missing"

    def test_the_size_limit(self, s3_server: str, make_settings: SettingsFactory) -> None:
        settings = make_settings(s3_endpoint_url=s3_server, s3_buckets=("train",), dataset_max_bytes=1000)
        uri = DatasetUri("s3", "s3://train/a b/ü.jsonl", "jsonl", None)
        assert refused(uri, settings)[0] == "too_large"
