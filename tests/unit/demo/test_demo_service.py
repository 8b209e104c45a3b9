from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from demo.service import ServiceError, running

if TYPE_CHECKING:
    from pathlib import Path


def test_a_service_that_does_not_start_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spice = tmp_path / "spice"
    spice.write_text("#!/bin/sh\necho the data directory is in use\nexit 3\n")
    spice.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ServiceError, match=r"(?s)status 3.*the data directory is in use"):  # noqa: SIM117
        with running(tmp_path / "data", tmp_path / "logs" / "serve.log"):
            pytest.fail("it did not start")


def test_a_service_is_told_its_places_and_stopped_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = sys.executable
    spice = tmp_path / "spice"
    spice.write_text(
        f"""#!{python}
import http.server, os, signal, sys

def stop(*_):
    print("stopped", flush=True)
    sys.exit(0)

signal.signal(signal.SIGTERM, stop)
print(sys.argv[1:], os.environ["SPICE_ALLOWED_ROOTS"], flush=True)

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()

http.server.HTTPServer((os.environ["SPICE_HOST"], int(os.environ["SPICE_PORT"])), Ready).serve_forever()
"""
    )
    spice.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    data, log = tmp_path / "data", tmp_path / "serve.log"
    with running(data, log) as address:
        assert address.startswith("http://127.0.0.1:")
    said = log.read_text()
    assert f"['serve'] {data}/datasets,{data}/models" in said
    assert said.rstrip().endswith("stopped")
