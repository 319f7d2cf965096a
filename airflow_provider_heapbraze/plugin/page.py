"""The page *Heap ↔ Braze* in Airflow's UI, and its API.

Airflow says who asks and which DAGs they may see; a cohort, a property or a source is shown to those who may
see the DAG of its newest run, and a run to those who may see its own. Airflow puts no guard of its own before
the apps of plugins: here each way in asks for one, but those to the style sheet and the script.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.locations import ledger_root, ledger_uri
from airflow_provider_heapbraze.overview.index import Index
from airflow_provider_heapbraze.pages.rendering import STATIC
from airflow_provider_heapbraze.plugin.views import View, as_json, one_run, overview, record, rendered

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
KEPT = "public, max-age=31536000, immutable"


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve; the app is made by the first request, so that Airflow's other processes do not make it."""
    app = await asyncio.to_thread(_app)
    await app(scope, receive, send)


@functools.cache
def _app() -> FastAPI:
    from fastapi import FastAPI
    from fastapi.staticfiles import StaticFiles

    app = FastAPI(title="Heap and Braze", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=STATIC))
    _add_views(app)
    _add_refusals(app)

    @app.middleware("http")
    async def with_headers(request: Request, go_on: Any) -> Response:
        response: Response = await go_on(request)
        response.headers.update(HEADERS)
        if _path(request).startswith("/static/"):
            response.headers["Cache-Control"] = KEPT  # its address changes with what it holds
        return response

    return app


def _add_views(app: FastAPI) -> None:
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi import Depends

    user_who_asks = Depends(get_user)

    def viewed(user: Any = user_who_asks) -> View:
        return _view_of(user)

    what_is_seen = Depends(viewed)

    @app.get("/api/records")
    def api_overview(view: Any = what_is_seen) -> list[dict[str, Any]]:
        return [summary.shown() for summary in view.summaries()]

    @app.get("/api/{group}/{folder}")
    def api_detail(group: str, folder: str, view: Any = what_is_seen) -> dict[str, Any]:
        return as_json(view.detail(group, folder))

    @app.get("/", response_class=HTMLResponse)
    def all_records(view: Any = what_is_seen) -> str:
        return overview(view)

    @app.get("/{group}/{folder}", response_class=HTMLResponse)
    def one_record(group: str, folder: str, view: Any = what_is_seen) -> str:
        return record(view.detail(group, folder))

    @app.get("/{group}/{folder}/run", response_class=HTMLResponse)
    def a_run(group: str, folder: str, id: str = "", view: Any = what_is_seen) -> str:  # noqa: A002 - in the URL
        return one_run(id, *view.run(group, folder, id))


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return _refusal(request, error.status_code, str(error.detail))

    @app.exception_handler(ConfigurationError)
    @app.exception_handler(OSError)
    async def unreadable(request: Request, error: Exception) -> Response:
        said = str(error) if isinstance(error, ConfigurationError) else f"{type(error).__name__}."
        log.warning("The ledger cannot be read: %s", said)
        text = f"The ledger cannot be read: {said} Look at [heapbraze] ledger and at its connection."
        return _refusal(request, HTTPStatus.SERVICE_UNAVAILABLE, text)


def _view_of(user: Any) -> View:
    from airflow.api_fastapi.app import get_auth_manager

    return View(_index(ledger_uri(None)), get_auth_manager().get_authorized_dag_ids(user=user))


_index_lock = threading.Lock()


def _index(uri: str) -> Index:
    with _index_lock:
        return _index_of(uri)


@functools.cache
def _index_of(uri: str) -> Index:
    return Index(ledger_root(uri))


def _refusal(request: Request, status: int, text: str) -> Response:
    """Answer in the form that was asked for."""
    path = _path(request)
    if path.startswith("/api/"):
        return JSONResponse({"detail": text}, status)
    depth = max(0, path.count("/") - 1)
    login = ""
    if status == HTTPStatus.UNAUTHORIZED:
        asked = quote(f"{request.url.path}?{request.url.query}".rstrip("?"), safe="")
        login = f"{'../' * (depth + 2)}api/v2/auth/login?next={asked}"
    title = HTTPStatus(status).phrase
    return HTMLResponse(rendered("message.html", depth=depth, title=title, text=text, login=login), status)


def _path(request: Request) -> str:
    """Return what was asked for, from the page's own address on."""
    return str(request.scope["path"]).removeprefix(request.scope["root_path"])
