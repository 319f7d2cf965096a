"""The application: both vendors' endpoints, and the control API beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.routing import Route

from airflow_provider_heapbraze.sandbox import cohorts, control, exports, heap, profiles, rest, segments
from airflow_provider_heapbraze.sandbox.exchange import serve
from airflow_provider_heapbraze.sandbox.models import Faults, NewUsers
from airflow_provider_heapbraze.sandbox.world import World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from airflow_provider_heapbraze.sandbox.exchange import Endpoint


def make_app(*, users: int = 0, faults: Faults | None = None) -> FastAPI:
    """Make the application.

    :param users: it starts, and starts again after a reset, with the users ``user-0``, ``user-1``, ….
    :param faults: what goes wrong until the control API says otherwise.
    """

    def new_world() -> World:
        world = World(faults)
        world.people.add(NewUsers(count=users))
        return world

    vendors = (cohorts, rest, profiles, segments, exports, heap)
    routes = [
        Route(endpoint.path, _handler(endpoint), methods=[endpoint.method])
        for part in vendors
        for endpoint in part.ENDPOINTS
    ]
    # FastAPI's pages about the API load their scripts from elsewhere: nothing here leaves the machine.
    app = FastAPI(
        title="Sandbox for Braze and Heap",
        routes=[Route("/", control.front_page), *routes],
        docs_url=None,
        redoc_url=None,
        openapi_url="/sandbox/openapi.json",
    )
    app.include_router(control.router)
    app.state.new_world = new_world
    app.state.world = new_world()
    return app


def _handler(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        return await serve(request.app.state.world, endpoint, request)

    return handle
