"""A process that runs, dies or hangs at one of its deeds, in an order that is the same each time."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter

from airflow_provider_heapbraze.clients.braze import BrazeClient, BrazeKeys, BrazeLimits, Limit
from airflow_provider_heapbraze.clients.transport import RetryPolicy, Transport
from airflow_provider_heapbraze.sandbox import connections
from tests.unit.membership.conftest import Nightly


class Killed(BaseException):
    """The process is gone: not even what is in its ``finally`` reaches the world any more."""


class Process:
    """Something that runs, and may die or hang at one of its deeds: a name in the ledger, or a request.

    :param fate: ``goes well``, ``dies before`` or ``dies after`` the deed, or ``hangs``: before a name is
        written, or when the answer to a request has come.
    :param at: the number of the deed.
    """

    here = threading.local()

    def __init__(self, work, fate="goes well", at=0):
        self.fate, self.at = fate, at
        self.deeds = 0
        self.dead = False
        self.report = self.error = None
        self.sent = []
        self.looked_at = 0  # of what it sent
        self.acknowledged = set()
        self._told = queue.SimpleQueue()
        self._wakes = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)

    def go(self):
        """Let it run; tell whether it has ended: else it hangs."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._wakes.set()
        ended = self._told.get(timeout=120)
        if ended:
            self._thread.join()
        return ended

    def kill(self):
        self.dead = True
        self.go()

    def do(self, deed, *, answered):
        if self.dead:
            raise Killed
        self.deeds += 1
        fate = self.fate if self.deeds == self.at else "goes well"
        self._meet(fate, "dies before", hangs=not answered)
        result = deed()
        self._meet(fate, "dies after", hangs=answered)
        return result

    def _meet(self, fate, death, *, hangs):
        if fate == death:
            self.dead = True
            raise Killed
        if fate == "hangs" and hangs:
            self._told.put(False)
            self._wakes.wait()
            if self.dead:
                raise Killed

    def _run(self, work):
        Process.here.now = self
        try:
            self.report = work(self)
        except BaseException as error:  # noqa: BLE001 - looked at by who started it
            self.error = error
        self._told.put(True)


def as_deed(real):
    """Let a process die or hang where it names a file of the record, not one that is only for the page."""

    def deed(*args, **kwargs):
        process = getattr(Process.here, "now", None)
        name = Path(args[1])
        if process is None or name.suffix == ".html" or name.parent.name == "glances":
            return real(*args, **kwargs)
        return process.do(lambda: real(*args, **kwargs), answered=False)

    return deed


class Wire(HTTPAdapter):
    """The way to Braze; it keeps what was sent, and a process may die or hang on it."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def send(self, request, *args, **kwargs):
        def deed():
            self.process.sent.append(request.body)
            response = super(Wire, self).send(request, *args, **kwargs)
            assert response.content is not None  # read, so that the connection is closed with its pool
            return response

        return self.process.do(deed, answered=True)


class Timeless:
    """A clock that is there at once."""

    passed = 0.0

    def now(self):
        return time.time() + self.passed

    def monotonic(self):
        return time.monotonic() + self.passed

    def sleep(self, seconds):
        self.passed += seconds


class OneAfterTheOther:
    """A pool that sends when it is told to: the same steps give the same run."""

    def __init__(self, *_args, **_kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def submit(self, function, *args):
        future = Future()
        try:
            future.set_result(function(*args))
        except BaseException as error:  # noqa: BLE001 - a future's business
            future.set_exception(error)
        return future

    def shutdown(self, **_how):
        pass


class Small(Nightly):
    """Two people in a request, no pace, and a client that belongs to a process."""

    @contextmanager
    def client_of(self, process, attempts):
        keys = BrazeKeys(
            rest_api_key=connections.REST_API_KEY,
            partner_api_key=connections.PARTNER_API_KEY,
            data_import_key=connections.DATA_IMPORT_KEY,
        )
        session, clock = requests.Session(), Timeless()
        session.trust_env = False
        session.mount("http://", Wire(process))
        retry = RetryPolicy(attempts=attempts)
        transport = Transport(session, self.sandbox.url, retry=retry, clock=clock)
        limits = BrazeLimits(cohort=Limit(1_000_000, 1.0))
        with BrazeClient(transport, keys, limits, clock=clock) as client:
            yield client

    def sender(self, client):
        sender = super().sender(client)
        sender.rows_per_request = 2
        return sender
