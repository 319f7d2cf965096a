"""How many events Heap may be sent in a minute: in all, and per identity (Heap: Track, bulk).

Everybody on this machine who sends to the same environment shares one budget: it lives in a small SQLite
file, so that an export, a backfill and a worker that was started anew keep the limits together. What Heap's
minute is, is not documented: no span of that length gets more than the limit, whichever way it is laid.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK, never, wait
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.clients.shared_file import open_file, unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from airflow_provider_heapbraze.clients.clock import Clock

# Our clock and the other side's do not run equally fast.
SLACK = 1.001
# An event counts until a period after its answer; where none comes, until one after the last possible one.
LONGEST_REQUEST = 75.0
TABLE = """
    CREATE TABLE IF NOT EXISTS sent (
        ticket INTEGER NOT NULL, process INTEGER NOT NULL, answered INTEGER NOT NULL,
        identity BLOB NOT NULL, events INTEGER NOT NULL, until REAL NOT NULL
    ) STRICT
"""


class EventLimits(NamedTuple):
    """Heap's limits; contracts may differ.

    :param events: per period and environment.
    :param events_per_identity: per period and identity.
    :param period: seconds.
    """

    events: int = 15_000
    events_per_identity: int = 1_000
    period: float = 60.0


class Ticket(NamedTuple):
    """Room that one request has.

    :param taken_at: on the budget's clock; the room is good for a request that goes soon after.
    """

    number: int
    taken_at: float


class Room:
    """What may be sent now.

    :param left: events in all.
    :param seconds: until there is more; 0 where nothing counts.
    """

    def __init__(self, limits: EventLimits, used: Mapping[bytes, int], seconds: float) -> None:
        self.left = max(0, limits.events - sum(used.values()))
        self.seconds = seconds
        self._per_identity = limits.events_per_identity
        self._used = used

    def of(self, identity: bytes) -> int:
        """Return how many events of an identity may be sent, as far as there is room in all."""
        return self._per_identity - self._used.get(identity, 0)


class EventBudget:
    """The events that are left; safe to share between threads, and between processes of one machine.

    :param app: names the environment; nothing that is kept holds it in clear.
    :param folder: where the shared file is; None keeps the budget to this object.
    :raises ConfigurationError: a limit is below 1.
    """

    def __init__(
        self,
        app: str,
        limits: EventLimits,
        *,
        folder: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if limits.events < 1 or limits.events_per_identity < 1 or limits.period <= 0:
            raise ConfigurationError("Heap's limits must be at least 1 event in more than 0 seconds.")
        self.limits = limits
        self._app = app.encode()
        self._clock = clock
        self._lock = threading.Lock()
        self._place = str(_file(folder, self._app)) if folder else ":memory:"
        self._database = open_file(self._place, TABLE)

    def close(self) -> None:
        """Close the file; what it holds stays for others."""
        self._database.close()

    def identity(self, identity: str) -> bytes:
        """Return what stands for an identity here."""
        text = identity.encode(errors="surrogatepass")
        return hashlib.blake2b(text, key=self._app[:64], digest_size=12).digest()

    def now(self) -> float:
        """Return seconds on the clock that is used here."""
        return self._clock.monotonic()

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Look how much room there is, and take some of it, while nobody else does.

        :raises ConfigurationError: the shared file is damaged.
        """
        with self._transaction():
            now = self._clock.monotonic()
            self._release(now)
            rows = self._database.execute("SELECT identity, sum(events) FROM sent GROUP BY identity")
            first = self._database.execute("SELECT min(until) FROM sent").fetchone()[0]
            used: dict[bytes, int] = dict(rows.fetchall())
            seconds = 0.0 if first is None else max(0.0, first - now)
            yield Turn(self._database, Room(self.limits, used, seconds), now, self._until(now))

    def answered(self, ticket: Ticket) -> None:
        """Note that a request has its answer, or surely gets none: how long its events count is known now."""
        until = self._clock.monotonic() + self.limits.period * SLACK
        with self._transaction():
            self._database.execute(
                "UPDATE sent SET until = ?, answered = 1 WHERE ticket = ?", (until, ticket.number)
            )

    def give_back(self, ticket: Ticket) -> None:
        """Note that a request never went: its room is free at once."""
        with self._transaction():
            self._database.execute("DELETE FROM sent WHERE ticket = ?", (ticket.number,))

    def take_again(self, events: Mapping[bytes, int], interrupted: Callable[[], bool] = never) -> Ticket:
        """Take room for a request that is sent again, and wait for it: Heap may have counted the first.

        :param events: number of events by :meth:`identity`.
        :returns: the new ticket.
        :raises InterruptedCallError: ``interrupted`` said so.
        """
        taken: list[Ticket] = []

        def seconds_left() -> float:
            with self.turn() as turn:
                room = turn.room
                if room.left >= sum(events.values()) and all(
                    room.of(identity) >= count for identity, count in events.items()
                ):
                    taken.append(turn.take(events))
                    return 0.0
                return max(room.seconds, 0.01)

        wait(self._clock, seconds_left, interrupted)
        return taken[0]

    @property
    def events_per_second(self) -> float:
        """Return the rate at which events of many identities can go."""
        return self.limits.events / self.limits.period

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._lock, self._database:
                self._database.execute("BEGIN IMMEDIATE")
                yield
        except sqlite3.DatabaseError as error:
            raise unusable(self._place, error) from None

    def _until(self, now: float) -> float:
        return now + self.limits.period * SLACK + LONGEST_REQUEST

    def _release(self, now: float) -> None:
        """Forget what no longer counts, and let what dead processes had under way count from now on."""
        self._database.execute("DELETE FROM sent WHERE until <= ? OR until > ?", (now, self._until(now)))
        waiting = self._database.execute("SELECT DISTINCT process FROM sent WHERE answered = 0").fetchall()
        for (process,) in waiting:
            if not _is_alive(process):
                self._database.execute(
                    "UPDATE sent SET until = ?, answered = 1 WHERE answered = 0 AND process = ?",
                    (now + self.limits.period * SLACK, process),
                )


class Turn:
    """A moment in which nobody else takes from a budget.

    :param room: what there is.
    """

    def __init__(self, database: sqlite3.Connection, room: Room, now: float, until: float) -> None:
        self.room = room
        self._database = database
        self._now = now
        self._until = until

    def take(self, events: Mapping[bytes, int]) -> Ticket:
        """Take room for one request.

        :param events: number of events by :meth:`EventBudget.identity`.
        :returns: for :meth:`EventBudget.answered`.
        """
        ticket = Ticket(int.from_bytes(os.urandom(7), "big"), self._now)
        rows = [
            (ticket.number, os.getpid(), identity, count, self._until) for identity, count in events.items()
        ]
        self._database.executemany("INSERT INTO sent VALUES (?, ?, 0, ?, ?, ?)", rows)
        return ticket


def _file(folder: Path, app: bytes) -> Path:
    return folder / f"events-{hashlib.blake2b(app, digest_size=8).hexdigest()}.sqlite"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
