"""The receiver as a server of its own."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.landing.app import make_app
from airflow_provider_heapbraze.landing.settings import HOST, PORT
from airflow_provider_heapbraze.landing.writer import WRITE_SECONDS

if TYPE_CHECKING:
    import uvicorn

    from airflow_provider_heapbraze.landing.settings import Settings

BACKLOG = 512


def listen(settings: Settings) -> socket.socket:
    """Listen where the settings say.

    :raises ConfigurationError: that is not possible.
    """
    reason: str | None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        reason = error.strerror
    else:
        return sock
    raise ConfigurationError(
        f"Cannot listen on {settings.host}:{settings.port}: {reason}. Look at {HOST} and {PORT}."
    )


def make_server(settings: Settings) -> uvicorn.Server:
    """Make a server, for a socket that listens already. It ends on SIGTERM, when what is open is answered."""
    import uvicorn

    config = uvicorn.Config(
        make_app(settings),
        ws="none",
        lifespan="off",
        access_log=False,  # lines would name sources
        log_config=None,
        log_level="error",  # it warns of each request that is none
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(WRITE_SECONDS) + 5,
    )
    return uvicorn.Server(config)
