"""The few endpoints of a model hub that huggingface_hub calls: there is no hub where these tests run.

Their shapes are those of huggingface.co, as the client reads them: the commit, the files at its root, a file's bytes.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE = 1000
"""Bytes from which a file is kept by its sha256, as a hub does with large files."""


@dataclass
class HubServer:
    """The server.

    Attributes:
        url: Its endpoint.
        models: Id and commit to the files, by name.
        datasets: Likewise, of datasets.
        calls: Paths that it was asked for.
        damage: Names of files that it hands out with a byte changed.
        refuse: A status to answer to everything, or None.
    """

    url: str = ""
    models: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    datasets: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    damage: set[str] = field(default_factory=set)
    refuse: int | None = None

    def answer(self, path: str, query: str = "") -> tuple[int, bytes]:
        """Status and body."""
        self.calls.append(path)
        if self.refuse is not None:
            return self.refuse, b"{}"
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            name, what, commit = "/".join(parts[2:4]), parts[4], parts[5]
            files = {"models": self.models, "datasets": self.datasets}[parts[1]].get((name, commit))
            if files is None:
                return 404, b"{}"
            body: Any = {"id": name, "sha": commit, "siblings": []}
            if what == "tree":
                deep = "recursive=true" in query.lower()
                body = list(tree(files, "/".join(parts[6:]), deep=deep))
            return 200, json.dumps(body).encode()
        kind = self.datasets if parts[0] == "datasets" else self.models
        parts = parts[1:] if parts[0] == "datasets" else parts
        content = kind.get(("/".join(parts[:2]), parts[3]), {}).get("/".join(parts[4:]))
        if content is None:
            return 404, b"{}"
        return 200, content[:-1] + bytes([content[-1] ^ 1]) if parts[-1] in self.damage else content


def tree(files: dict[str, bytes], below: str, *, deep: bool) -> Iterator[dict[str, Any]]:
    """What lies in a directory: files, then directories; `deep`: the files of those too."""
    start = f"{below}/" if below else ""
    inside = {name.removeprefix(start): name for name in files if name.startswith(start)}
    yield from (entry(name, files[name]) for rest, name in inside.items() if deep or "/" not in rest)
    for directory in dict.fromkeys(rest.partition("/")[0] for rest in inside if "/" in rest):
        yield {"type": "directory", "path": start + directory, "size": 0, "oid": "0" * 40}


def entry(path: str, content: bytes) -> dict[str, Any]:
    """A file as the hub lists it."""
    oid = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
    listed: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": oid}
    if len(content) >= LARGE:
        digest = hashlib.sha256(content).hexdigest()
        listed["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
    return listed


@contextmanager
def hub_server() -> Iterator[HubServer]:
    hub = HubServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            status, body = hub.answer(asked.path, asked.query)
            if status == http.HTTPStatus.OK and (wanted := self.headers.get("Range")):
                first, last = (int(place) for place in wanted.removeprefix("bytes=").split("-"))
                status, body = http.HTTPStatus.PARTIAL_CONTENT, body[first : last + 1]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
