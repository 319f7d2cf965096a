"""Deliveries become files: those that come together share a write, and each waits until it is durable."""

from __future__ import annotations

import asyncio
import errno
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.clients.errors import TransientError
from airflow_provider_heapbraze.landing.answers import RefusedError
from airflow_provider_heapbraze.landing.quarantine import Quarantine
from airflow_provider_heapbraze.landing.store import store_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from airflow_provider_heapbraze.clients.clock import Clock
    from airflow_provider_heapbraze.landing.doors import Doors
    from airflow_provider_heapbraze.landing.metrics import Metrics
    from airflow_provider_heapbraze.landing.notes import Notes

GATHER_SECONDS = 0.02  # at most, for others that are being read; a write under way comes on top
WRITE_SECONDS = 30.0  # a write that is given up may end later: what comes again has then landed twice
WRITE_BYTES = 16 << 20  # a file gets no more deliveries from here on
THREADS = 8  # as many streams are written at once


class NotWrittenError(TransientError):
    """A delivery is not durable; nothing half-written can be seen.

    :param kind: of the error: ENOSPC, TimeoutError, ….
    """

    def __init__(self, kind: str) -> None:
        super().__init__(f"The landing path cannot be written ({kind}).")
        self.kind = kind


@dataclass(frozen=True, eq=False)
class _Delivery:
    received_at: int
    line: bytes
    durable: asyncio.Future[None]


class Writer:
    """The files of one app in this process. Its threads and its tasks start with the first delivery.

    :param path: where deliveries land; a path with pathlib's interface.
    :param doors: tell whether other deliveries will come in a moment.
    :param clock: time, handed in.
    """

    def __init__(self, path: Path, metrics: Metrics, notes: Notes, doors: Doors, clock: Clock) -> None:
        self._store = store_at(path)
        self._quarantine = Quarantine(path, self._store, clock)
        self._metrics = metrics
        self._notes = notes
        self._doors = doors
        self._waiting: dict[tuple[str, ...], list[_Delivery]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="heapbraze-landing")
        self._overdue: set[Future[None]] = set()
        self._numbers = count(1)
        self._process = ""  # not before the first write: a server may fork

    async def land(self, stream: tuple[str, ...], received_at: int, line: bytes) -> None:
        """Write a delivery; return when it is durable.

        :param stream: names of folders below the landing path.
        :param received_at: UTC epoch milliseconds.
        :param line: without its end.
        :raises NotWrittenError: it is not.
        """
        self._refuse_where_overdue()
        hour = datetime.fromtimestamp(received_at / 1000, UTC).strftime("date=%Y-%m-%d-%H")
        delivery = _Delivery(received_at, line, asyncio.get_running_loop().create_future())
        self._put((*stream, hour), delivery)
        await delivery.durable

    async def set_aside(self, stream: tuple[str, ...], body: bytes) -> None:
        """Write a body that is not understood into the quarantine; return when it is durable.

        :param stream: names of folders in there.
        :raises NotWrittenError: it is not.
        :raises RefusedError: there is too much already.
        """
        self._refuse_where_overdue()
        try:
            await self._in_time(self._quarantine.keep, stream, body)
        except RefusedError:
            raise
        except Exception as error:  # noqa: BLE001 - every store's client has errors of its own
            kind = self._failed(error, 1)
        else:
            self._metrics.writes.labels("done").inc()
            return
        raise NotWrittenError(kind)

    async def probe(self) -> None:
        """Return if the store can be written now.

        :raises NotWrittenError: it cannot.
        """
        self._refuse_where_overdue()
        try:
            await self._in_time(self._store.probe)
        except Exception as error:  # noqa: BLE001 - every store's client has errors of its own
            kind = kind_of(error)
        else:
            return
        raise NotWrittenError(kind)

    def _put(self, folder: tuple[str, ...], delivery: _Delivery) -> None:
        if folder in self._waiting:
            self._waiting[folder].append(delivery)
            return
        self._waiting[folder] = [delivery]
        task = asyncio.get_running_loop().create_task(self._write_all(folder))
        self._tasks.add(task)  # the loop itself would forget it
        task.add_done_callback(self._tasks.discard)

    async def _write_all(self, folder: tuple[str, ...]) -> None:
        waiting = self._waiting[folder]
        try:
            while waiting:
                await self._doors.all_read(GATHER_SECONDS)
                await self._write(folder, _taken_from(waiting))
        finally:
            del self._waiting[folder]
            _fail(waiting, "cancelled")

    async def _write(self, folder: tuple[str, ...], deliveries: list[_Delivery]) -> None:
        started = time.monotonic()
        data = b"".join(part for delivery in deliveries for part in (delivery.line, b"\n"))
        name = self._name(deliveries[0].received_at)
        try:
            await self._in_time(self._store.write, folder, name, data)
        except Exception as error:  # noqa: BLE001 - every store's client has errors of its own
            _fail(deliveries, self._failed(error, len(deliveries)))
        else:
            self._metrics.writes.labels("done").inc()
            self._metrics.write_seconds.observe(time.monotonic() - started)
            self._metrics.deliveries_per_write.observe(len(deliveries))
            for delivery in deliveries:
                if not delivery.durable.done():
                    delivery.durable.set_result(None)
        finally:
            _fail(deliveries, "cancelled")

    def _failed(self, error: Exception, deliveries: int) -> str:
        """Count and say that a write failed; return of what kind its error is."""
        kind = kind_of(error)
        self._metrics.writes.labels("failed").inc()
        self._notes.warn(
            f"write {kind}",
            f"A write to the landing path failed: {kind}. Its {deliveries} deliveries were answered "
            "with 503 and come again. Look at the disk or the store.",
        )
        return kind

    def _name(self, received_at: int) -> str:
        self._process = self._process or secrets.token_hex(4)
        return f"{received_at:013d}-{self._process}-{next(self._numbers):08d}.ndjson"

    async def _in_time(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do it in a thread.

        :raises TimeoutError: it takes too long; the thread cannot be stopped.
        """
        running = self._threads.submit(work, *arguments)
        result = asyncio.wrap_future(running)
        await asyncio.wait({result}, timeout=WRITE_SECONDS)
        if not result.done():
            result.cancel()
            if not running.cancelled():
                self._overdue.add(running)
                running.add_done_callback(self._overdue.discard)
            raise TimeoutError
        result.result()

    def _refuse_where_overdue(self) -> None:
        """Take nothing while a write hangs: what is taken would pile up behind it."""
        if self._overdue:
            raise NotWrittenError("TimeoutError")


def kind_of(error: Exception) -> str:
    """Return what may be said of an error: its text can hold names."""
    number = error.errno if isinstance(error, OSError) else None
    return errno.errorcode.get(number or 0, type(error).__name__)


def _taken_from(waiting: list[_Delivery]) -> list[_Delivery]:
    taken, size = 0, 0
    while taken < len(waiting) and size < WRITE_BYTES:
        size += len(waiting[taken].line)
        taken += 1
    deliveries = waiting[:taken]
    del waiting[:taken]
    return deliveries


def _fail(deliveries: list[_Delivery], kind: str) -> None:
    for delivery in deliveries:
        if not delivery.durable.done():
            delivery.durable.set_exception(NotWrittenError(kind))
