"""Whether the API can listen on its port, and which process uses the port if not."""

from __future__ import annotations

import contextlib
import errno
import socket

import psutil  # type: ignore[import-untyped]

from app.local.errors import LocalServerError


class PortUnavailableError(LocalServerError):
    """The API can't listen on its address."""


def check_port(host: str, port: int) -> None:
    """Look whether the API could listen on an address.

    Raises:
        PortUnavailableError: It could not; the message names the port and, if it can be seen, who holds it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortUnavailableError(
                f"port {port} of {host} is in use{_holder(port)}: stop that, or choose another port with --port"
            ) from None
        raise PortUnavailableError(
            f"the API cannot listen on port {port} of {host} ({error.strerror}): "
            "choose another address with --host, or another port with --port"
        ) from None


def _holder(port: int) -> str:
    """Say which process listens on a port, as far as this user may know."""
    with contextlib.suppress(psutil.Error, RuntimeError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
