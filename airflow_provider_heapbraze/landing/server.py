"""The receiver as a server of its own."""

from __future__ import annotations

import errno
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.landing.app import make_app
from airflow_provider_heapbraze.landing.connections import LimitedConnection
from airflow_provider_heapbraze.landing.notes import log
from airflow_provider_heapbraze.landing.settings import HOST, PATH, PORT
from airflow_provider_heapbraze.landing.store import store_at
from airflow_provider_heapbraze.landing.writer import WRITE_SECONDS, NotWrittenError, kind_of

if TYPE_CHECKING:
    import asyncio

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


def check_path(settings: Settings) -> None:
    """Look whether the landing path can be written; warn where it cannot now, but may be later.

    :raises ConfigurationError: it cannot, and waiting does not help.
    """
    threads = ThreadPoolExecutor(1, thread_name_prefix="heapbraze-landing")  # a store may hang
    try:
        threads.submit(store_at(settings.path).probe).result(WRITE_SECONDS)
    except Exception as error:  # noqa: BLE001 - every store's client has errors of its own
        reason, for_good = str(NotWrittenError(kind_of(error))), _is_for_good(error)
    else:
        return
    finally:
        threads.shutdown(wait=False)
    if for_good:
        raise ConfigurationError(f"{reason} Look at {PATH}, and at who may write there.")
    log.warning(
        "%s Until it can, every delivery gets 503 and comes again. Look at the disk or the store.", reason
    )


def _is_for_good(error: Exception) -> bool:
    if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
        return True
    return isinstance(error, OSError) and error.errno == errno.EROFS


def make_server(settings: Settings) -> uvicorn.Server:
    """Make a server, for a socket that listens already. It ends on SIGTERM, when what is open is answered."""
    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    connection: type[asyncio.Protocol] = type("Connection", (LimitedConnection, AutoHTTPProtocol), {})
    config = uvicorn.Config(
        make_app(settings),
        http=connection,
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
