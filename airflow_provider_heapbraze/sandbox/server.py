"""The sandbox as a server: in a thread of this process for tests, or in the foreground for people."""

from __future__ import annotations

import ipaddress
import socket
import threading
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_provider_heapbraze.sandbox.app import make_app
from airflow_provider_heapbraze.sandbox.client import Sandbox

if TYPE_CHECKING:
    import asyncio

    from airflow_provider_heapbraze.sandbox.models import Faults


class _OpenTransport(H11Protocol):
    """Lets a request reach its own connection, so that it can be cut."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def listen(host: str, port: int) -> socket.socket:
    """Listen on a loopback address: the sandbox is not for anybody else.

    :param port: 0 takes a free one.
    :raises ValueError: another host.
    :raises OSError: the port is taken.
    """
    address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    if not address.is_loopback:
        raise ValueError("the sandbox only listens on this machine: give a loopback address")
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - as it is called
    # asyncio turns Nagle's algorithm off where a socket says TCP; with it every answer would take 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(address), port))
        sock.listen(512)
    except OSError:
        sock.close()
        raise
    return sock


def url_of(sock: socket.socket) -> str:
    """Return the address of a server that listens on a socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if sock.family == socket.AF_INET6 else f"http://{host}:{port}"


def make_server(*, users: int = 0, faults: Faults | None = None) -> uvicorn.Server:
    """Make a server, for a socket that listens already."""
    config = uvicorn.Config(
        make_app(users=users, faults=faults),
        http=_OpenTransport,
        ws="none",  # some versions warn when they load it
        lifespan="off",
        access_log=False,  # lines would name cohorts
        log_config=None,  # a test's own logging stays as it is
        log_level="warning",
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


class SandboxServer:
    """A sandbox in a thread of this process, on a free port; ``with`` gives the :class:`Sandbox` to drive it.

    :param users: it starts, and starts again after a reset, with the users ``user-0``, ``user-1``, ….
    :param faults: what goes wrong until the control API says otherwise.
    """

    def __init__(self, *, users: int = 0, faults: Faults | None = None) -> None:
        self._server = make_server(users=users, faults=faults)

    def __enter__(self) -> Sandbox:
        """Start; the socket takes connections from the first moment on."""
        sock = listen("127.0.0.1", 0)
        self._thread = threading.Thread(
            target=self._server.run, args=([sock],), name="heapbraze-sandbox", daemon=True
        )
        self._sandbox = Sandbox(url_of(sock))
        self._thread.start()
        return self._sandbox

    def __exit__(self, *_: object) -> None:
        """Stop, and wait until it has."""
        self._sandbox.close()
        self._server.should_exit = True
        self._thread.join()
