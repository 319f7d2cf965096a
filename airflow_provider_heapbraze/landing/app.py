"""The ASGI app. It can be mounted in another one: it needs no lifespan; its first delivery starts it."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK
from airflow_provider_heapbraze.landing import answers, bodies, quarantine
from airflow_provider_heapbraze.landing.answers import Answer, RefusedError
from airflow_provider_heapbraze.landing.credentials import check_bearer, heap_signature
from airflow_provider_heapbraze.landing.doors import BRAZE, HEAP, Doors
from airflow_provider_heapbraze.landing.metrics import Metrics
from airflow_provider_heapbraze.landing.notes import Notes, log
from airflow_provider_heapbraze.landing.writer import NotWrittenError, Writer, kind_of
from airflow_provider_heapbraze.segments_sync.pages import landed_line, segment_folder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from starlette.requests import Request

    from airflow_provider_heapbraze.clients.clock import Clock
    from airflow_provider_heapbraze.landing.settings import Settings

    Result = TypeVar("Result")

SOURCE = re.compile(r"[A-Za-z0-9_-]{1,64}")
LARGE = 128 << 10  # bytes; reading through more would hold other requests up
READY_SECONDS = 5.0  # how long one look at the landing path is good for


def make_app(settings: Settings, *, clock: Clock = SYSTEM_CLOCK) -> Starlette:
    """Make the app.

    ``POST /heap/segments`` takes Segments Sync webhooks, ``POST /braze/currents/<source>`` Currents batches.
    A 2xx says that they are durable. ``/health``, ``/ready`` and ``/metrics`` are for the operator.

    :param clock: time, handed in.
    """
    landing = Landing(settings, clock)
    app = Starlette(
        routes=[
            Route("/heap/segments", landing.heap, methods=["POST"]),
            Route("/braze/currents/{source}", landing.braze, methods=["POST"]),
            Route("/health", _health),
            Route("/ready", landing.ready),
            Route("/metrics", landing.metrics),
        ]
    )
    app.router.redirect_slashes = False
    taken = [name for name, keys in ((HEAP, settings.heap_secrets), (BRAZE, settings.braze_tokens)) if keys]
    log.info("Landing at %s; taken from: %s", storage.uri(settings.path), ", ".join(taken) or "nobody")
    return app


class Landing:
    """The endpoints.

    :param clock: time, handed in.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._doors = Doors(settings.most_open, clock)
        self._metrics = Metrics()
        for route in (HEAP, BRAZE):
            self._metrics.open.labels(route).set_function(partial(self._doors.open, route))
        self._notes = Notes(clock)
        self._writer = Writer(settings.path, self._metrics, self._notes, self._doors, clock)
        self._looking = asyncio.Lock()
        self._look_again = clock.monotonic()
        self._not_ready = ""

    async def heap(self, request: Request) -> Response:
        """Take a webhook of Segments Sync."""
        return await self._answered(HEAP, self._take_page, request)

    async def braze(self, request: Request) -> Response:
        """Take a batch of Currents."""
        return await self._answered(BRAZE, self._take_batch, request)

    async def ready(self, _request: Request) -> Response:
        """Tell whether deliveries can be taken now."""
        reason = await self._reason_against()
        if reason:
            return JSONResponse({"ready": False, "reason": reason}, 503, answers.NOT_WRITTEN.headers)
        return JSONResponse({"ready": True})

    async def metrics(self, _request: Request) -> Response:
        """Give Prometheus its numbers: those of this process."""
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _take_page(self, request: Request) -> Answer:
        if not self._settings.heap_secrets:
            raise RefusedError(answers.NO_SECRET)
        signature = heap_signature(request.headers.getlist("heap-hash"))
        signature.check_age(self._now())
        bodies.check_length(request, self._settings.most_bytes)
        with self._doors.entered(HEAP):
            async with self._doors.reading(HEAP):
                body = await bodies.read(request, self._settings.most_bytes)
                await _checked(body, lambda: signature.check(body, self._settings.heap_secrets))
                segment_id = await _checked(body, lambda: bodies.segment_of_page(body))
            if segment_id is None:
                return await self._set_aside(HEAP, (HEAP,), body)
            now = self._now()
            line = landed_line(body, received_at=now, sent_at=int(signature.sent_at))
            stream = segment_folder(self._settings.path, segment_id).parts[-2:]
            await self._land(HEAP, stream, now, line)
        return answers.LANDED

    async def _take_batch(self, request: Request) -> Answer:
        source = request.path_params["source"]
        if not SOURCE.fullmatch(source):
            raise RefusedError(answers.NO_SOURCE)
        if not self._settings.braze_tokens:
            raise RefusedError(answers.NO_TOKEN)
        check_bearer(request.headers.getlist("authorization"), self._settings.braze_tokens)
        bodies.check_length(request, self._settings.most_bytes)
        with self._doors.entered(BRAZE):
            async with self._doors.reading(BRAZE):
                body = await bodies.read(request, self._settings.most_bytes)
                line = await _checked(body, lambda: bodies.line_of_batch(body))
            if line is None:
                return await self._set_aside(BRAZE, (BRAZE, source), body)
            if not line:
                return answers.EMPTY
            await self._land(BRAZE, (BRAZE, source), self._now(), line)
        return answers.LANDED

    async def _answered(
        self, route: str, take: Callable[[Request], Awaitable[Answer]], request: Request
    ) -> Response:
        answer = await self._answer(take, request)
        self._metrics.deliveries.labels(route, answer.outcome).inc()
        if answer.status >= 400 and answer is not answers.NOT_WRITTEN:  # noqa: PLR2004 - as HTTP has it
            self._notes.warn(
                f"{route} {answer.outcome}",
                f"A delivery by {route} got {answer.status:d}: {answer.text} Nothing was written.",
            )
        return PlainTextResponse(answer.text, answer.status, answer.headers)

    async def _answer(self, take: Callable[[Request], Awaitable[Answer]], request: Request) -> Answer:
        try:
            return await take(request)
        except RefusedError as error:
            return error.answer
        except NotWrittenError:
            return answers.NOT_WRITTEN
        except Exception as error:  # noqa: BLE001 - a 500 would say what is in the body; and Braze waits after a 503
            self._notes.warn("unexpected", f"The receiver failed with {kind_of(error)}; please report this.")
            return answers.UNEXPECTED

    async def _land(self, route: str, stream: tuple[str, ...], received_at: int, line: bytes) -> None:
        await self._writer.land(stream, received_at, line)
        self._metrics.bytes.labels(route).inc(len(line))

    async def _set_aside(self, route: str, stream: tuple[str, ...], body: bytes) -> Answer:
        await self._writer.set_aside(stream, body)
        self._notes.warn(
            f"{route} quarantined",
            f"A delivery by {route} is not understood. It is kept as it came, as {quarantine.name_of(body)} "
            f"below {quarantine.FOLDER}/{route} of the landing path. Nothing reads it there: look at it.",
        )
        return answers.QUARANTINED

    async def _reason_against(self) -> str:
        if not self._settings.heap_secrets and not self._settings.braze_tokens:
            return "neither a secret of Heap nor a token of Braze is configured"
        async with self._looking:
            if self._clock.monotonic() >= self._look_again:
                self._not_ready = await self._look()
                self._look_again = self._clock.monotonic() + READY_SECONDS
        return self._not_ready

    async def _look(self) -> str:
        try:
            await self._writer.probe()
        except NotWrittenError as error:
            return str(error)
        return ""

    def _now(self) -> int:
        return int(self._clock.now() * 1000)


async def _health(_request: Request) -> Response:
    return PlainTextResponse("alive")


async def _checked(body: bytes, work: Callable[[], Result]) -> Result:
    return work() if len(body) < LARGE else await asyncio.to_thread(work)
