"""The landing service inside Airflow's API server.

What Heap and Braze must know stands in the default connections: Heap's ``webhook_secret``, Braze's
``currents_token``. They are read again every minute: a change counts soon, and a database that was away does
not switch a sender off for good.
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
READ_EVERY = 60.0  # seconds


async def landing(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve; the service is opened by the first request, so that Airflow's other processes do not open it."""
    try:
        app = await asyncio.to_thread(_service.app)
    except ConfigurationError as error:
        log.error("The landing service cannot be opened: %s", error)  # noqa: TRY400 - the sentence says all
        app = _no_path
    await app(scope, receive, send)


class Service:
    """The app for the settings of now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = -math.inf
        self._settings: Settings | None = None
        self._app: ASGIApp = _no_path

    def app(self) -> ASGIApp:
        """Return the app; the same one, until the settings are others.

        :raises ConfigurationError: there is nowhere to write to.
        """
        with self._lock:
            if time.monotonic() >= self._read_at + READ_EVERY:
                settings = _settings()
                if settings != self._settings:
                    self._app, self._settings = make_app(settings), settings
                self._read_at = time.monotonic()
            return self._app


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
        return ()


async def _no_path(scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import PlainTextResponse

    response = PlainTextResponse(NO_PATH.text, NO_PATH.status, NO_PATH.headers)
    await response(scope, receive, send)


_service = Service()
