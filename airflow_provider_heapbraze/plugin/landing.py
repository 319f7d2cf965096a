"""The landing service inside Airflow's API server.

What Heap and Braze must know stands in the default connections: Heap's ``webhook_secret``, Braze's
``currents_token``. The API server is restarted after a change of them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import cache
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowNotFoundException, conf

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.hooks.heap import HeapHook
from airflow_provider_heapbraze.landing.answers import NOT_CONFIGURED
from airflow_provider_heapbraze.landing.app import make_app
from airflow_provider_heapbraze.landing.settings import Settings
from airflow_provider_heapbraze.locations import path_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)
_opening = threading.Lock()


async def landing(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve; the service is opened by the first request, so that Airflow's other processes do not open it."""
    try:
        app = await asyncio.to_thread(_app)
    except ConfigurationError as error:
        log.error("The landing service cannot be opened: %s", error)  # noqa: TRY400 - the sentence says all
        app = _not_configured
    await app(scope, receive, send)


def _app() -> ASGIApp:
    with _opening:
        return _open()


@cache
def _open() -> ASGIApp:
    path = conf.get("heapbraze", "landing_path", fallback="")
    if not path:
        raise ConfigurationError(
            "Airflow's configuration does not say where what is pushed goes: set [heapbraze] landing_path."
        )
    return make_app(
        Settings(
            path=path_of(path),
            heap_secrets=_secrets(HeapHook().get_webhook_secrets),
            braze_tokens=_secrets(BrazeHook().get_currents_tokens),
        )
    )


def _secrets(read: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """Return what a connection holds; without that connection, nothing: its sender is told so."""
    try:
        return read()
    except AirflowNotFoundException:
        return ()


async def _not_configured(scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import PlainTextResponse

    response = PlainTextResponse(NOT_CONFIGURED.text, NOT_CONFIGURED.status, NOT_CONFIGURED.headers)
    await response(scope, receive, send)
