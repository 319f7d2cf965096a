"""The landing service inside Airflow's API server.

What Heap and Braze must know stands in the default connections: Heap's ``webhook_secret``, Braze's
``currents_token``. They are read again every minute, so that a change counts soon. Where they cannot be read,
nobody knows who is a sender, and all are asked to come again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowNotFoundException, conf

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.hooks.heap import HeapHook
from airflow_provider_heapbraze.landing.answers import Answer
from airflow_provider_heapbraze.landing.app import make_app
from airflow_provider_heapbraze.landing.settings import Settings
from airflow_provider_heapbraze.landing.writer import kind_of
from airflow_provider_heapbraze.locations import path_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)
NO_PATH = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "not_configured",
    "No landing path is configured. Set [heapbraze] landing_path in Airflow's configuration.",
)
AWAY = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "away",
    "Who may deliver cannot be read now: Airflow's database, or its secrets backend, is away.",
)
READ_EVERY = 60.0  # seconds
AWAY_SECONDS = 10.0  # after a read that failed; each may wait long for a database that does not answer


async def landing(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve; the service is opened by the first request, so that Airflow's other processes do not open it."""
    try:
        app = await asyncio.to_thread(_service.app)
    except ConfigurationError as error:
        log.error("The landing service cannot be opened: %s", error)  # noqa: TRY400 - the sentence says all
        app = _always(NO_PATH)
    await app(scope, receive, send)


class Service:
    """The app for the settings of now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = -math.inf
        self._is_away = False
        self._settings: Settings | None = None
        self._app: ASGIApp = _always(AWAY)

    def app(self) -> ASGIApp:
        """Return the app; the same one, until the settings are others.

        :raises ConfigurationError: there is nowhere to write to.
        """
        with self._lock:
            if time.monotonic() >= self._read_at + (AWAY_SECONDS if self._is_away else READ_EVERY):
                self._read()
                self._read_at = time.monotonic()
            return _always(AWAY) if self._is_away else self._app

    def _read(self) -> None:
        try:
            settings = _settings()
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - every database and secrets backend has errors of its own
            self._tell(error)
            self._is_away = True
            return
        if settings != self._settings:
            self._app, self._settings = make_app(settings), settings
        self._is_away = False

    def _tell(self, error: Exception) -> None:
        """Say it once, until it is over; the error's own text can hold a password."""
        if not self._is_away:
            log.error(
                "The connections of the landing service cannot be read (%s): deliveries get 503 and come "
                "again. Look at Airflow's database and its secrets backend; they are read again every %d "
                "seconds.",
                kind_of(error),
                AWAY_SECONDS,
            )


def _settings() -> Settings:
    path = conf.get("heapbraze", "landing_path", fallback="")
    if not path:
        raise ConfigurationError(
            "Airflow's configuration does not say where what is pushed goes: set [heapbraze] landing_path."
        )
    return Settings(
        path=path_of(path),
        heap_secrets=_secrets(HeapHook().get_webhook_secrets),
        braze_tokens=_secrets(BrazeHook().get_currents_tokens),
    )


def _secrets(read: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """Return what a connection holds; without that connection, nothing: its sender is told so."""
    try:
        return read()
    except AirflowNotFoundException:
        _check_database()
        return ()


def _check_database() -> None:
    """Have Airflow's database say anything: where it is away, Airflow says that there is no connection.

    :raises Exception: it is away.
    """
    from airflow.utils.session import create_session
    from sqlalchemy import text

    with create_session() as session:
        session.execute(text("SELECT 1"))


def _always(answer: Answer) -> ASGIApp:
    """Return an app that says the same to everybody."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.responses import PlainTextResponse

        response = PlainTextResponse(answer.text, answer.status, answer.headers)
        await response(scope, receive, send)

    return app


_service = Service()
