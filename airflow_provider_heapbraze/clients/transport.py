"""Send requests: paced, with a timeout, tried again where that can help, and silent about what they carry."""

from __future__ import annotations

import logging
import random as random_module
import threading
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from json import dumps
from typing import TYPE_CHECKING, Any

from msgspec.json import encode

from airflow_provider_heapbraze import __version__
from airflow_provider_heapbraze.clients.address import normalise_base_url
from airflow_provider_heapbraze.clients.answers import Answer
from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK, wait
from airflow_provider_heapbraze.clients.concurrency import AdaptiveConcurrency
from airflow_provider_heapbraze.clients.errors import (
    HeapBrazeError,
    InterruptedCallError,
    NoAnswerError,
    RateLimitedError,
    ResourceLockedError,
    TransientError,
)
from airflow_provider_heapbraze.clients.waiting import retry_after, told_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import requests
    from requests.adapters import BaseAdapter

    from airflow_provider_heapbraze.clients.answers import Endpoint
    from airflow_provider_heapbraze.clients.clock import Clock

log = logging.getLogger(__name__)

USER_AGENT = f"airflow-provider-heapbraze/{__version__}"
CONNECTIONS = 32
TIMEOUT = (10.0, 60.0)
BLOCK = 1 << 20
WAITS = (RateLimitedError, ResourceLockedError)


@dataclass(frozen=True)
class RetryPolicy:
    """How long one request is tried.

    A 5xx, no answer and an unclear answer use up tries, with exponential backoff and full jitter between
    them. 429 and 423 are waits, not failures: they use up patience only.

    :param attempts: tries at most.
    :param first: seconds of backoff after the first try, at most; doubles with each further one.
    :param cap: seconds of backoff, at most.
    :param patience: seconds from the first try on after which no further wait begins.
    """

    attempts: int = 8
    first: float = 0.5
    cap: float = 60.0
    patience: float = 7200.0


class Transport:
    """One host, one session, any number of threads.

    The session is asked for its TLS, proxy and keep-alive settings only. Its cookies, headers and
    authentication stay out, and so does ``~/.netrc``: all of them would put things into headers that no
    caller asked for.

    :param session: its adapter's pool is made large enough for ``connections``.
    :param base_url: an https address; http for this machine only.
    :param user_agent: sent where a call names no other.
    :param timeout: seconds to connect, and seconds of silence until an answer counts as missing.
    :param random: a number from 0 to 1, for jitter.
    :param connections: kept open, at most.
    :raises ConfigurationError: the address is not allowed.
    """

    def __init__(
        self,
        session: requests.Session,
        base_url: str,
        *,
        user_agent: str = USER_AGENT,
        timeout: tuple[float, float] = TIMEOUT,
        retry: RetryPolicy = RetryPolicy(),
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = random_module.random,
        connections: int = CONNECTIONS,
    ) -> None:
        self.base_url = normalise_base_url(base_url)
        self.statistics = Statistics()
        self._session = session
        self._settings = _settings(session, self.base_url)
        self._adapter = session.get_adapter(self.base_url)
        _make_room(self._adapter, connections)
        self._headers = {
            "User-Agent": user_agent,
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
        }
        self._timeout = timeout
        self._retry = retry
        self._clock = clock
        self._random = random
        # A plain flag: it is set in signal handlers, where taking a lock may never end.
        self._interrupted = False

    def send(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        *,
        json: object | None = None,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        lane: AdaptiveConcurrency | None = None,
        check: Callable[[], None] | None = None,
    ) -> Answer:
        """Send a request until an answer settles it.

        :param path: begins with a slash; holds nothing private, since URLs are logged on the way.
        :param json: the body.
        :param content: the body as JSON already, in place of ``json``.
        :param headers: added to, and in place of, the transport's own.
        :param lane: limits how many requests of one delivery are under way.
        :param check: called right before each try; where it raises, nothing is sent.
        :raises PermanentError: the endpoint refuses the request.
        :raises TransientError: tries or patience are used up; ``retry_after`` says when to come back.
        :raises InterruptedCallError: :meth:`interrupt` was called.
        """
        body = _encoded(json) if json is not None else content
        request = self._prepare(method, path, body, params, headers)
        return self._settle(endpoint, lambda: self._exchange(endpoint, request), lane, check)

    def fetch(
        self,
        endpoint: Endpoint,
        request: requests.PreparedRequest,
        take: Callable[[Answer, Iterator[bytes]], None] | None = None,
    ) -> Answer:
        """Send a request to any host until an answer settles it, with the session's TLS and proxy settings.

        :param request: sent as it is: no header of the transport goes along.
        :param take: given a success without its body, and the body in blocks of 1 MiB at most, undecoded.
            Where it is cut, ``take`` is called again, with the body from its start. Without ``take`` the body
            stays unread.
        :returns: the answer, without its body.
        :raises HeapBrazeError: as :meth:`send`.
        """
        return self._settle(endpoint, lambda: self._stream(endpoint, request, take))

    def interrupt(self) -> None:
        """End every wait within half a second, and send nothing more. Safe in a signal handler."""
        self._interrupted = True

    def close(self) -> None:
        """Close the session."""
        self._session.close()

    def _settle(
        self,
        endpoint: Endpoint,
        exchange: Callable[[], Answer | NoAnswerError],
        lane: AdaptiveConcurrency | None = None,
        check: Callable[[], None] | None = None,
    ) -> Answer:
        """Make an exchange, paced, until its answer settles it."""
        schedule = _Schedule(self._retry, self._clock, self._random)
        lane = lane or AdaptiveConcurrency(1)
        while True:
            with lane.slot() as generation:
                endpoint.budget.acquire(self._is_interrupted)
                if check is not None:
                    check()
                outcome = self._attempt(endpoint, exchange)
                if isinstance(outcome, Answer):
                    lane.accepted()
                    return outcome
                if isinstance(outcome, ResourceLockedError):
                    lane.told_to_wait(generation)  # too many at once; a 429 is too many in a time
                seconds = schedule.seconds_after(outcome)
                if isinstance(outcome, RateLimitedError):
                    endpoint.budget.pause(seconds)
            self._wait(outcome, seconds)

    def _prepare(
        self,
        method: str,
        path: str,
        body: bytes | None,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
    ) -> requests.PreparedRequest:
        import requests

        merged = {**self._headers, **(headers or {})}
        if body is not None:
            merged["Content-Type"] = "application/json"
        return requests.Request(
            method, self.base_url + path, headers=merged, params=params, data=body
        ).prepare()

    def _attempt(
        self, endpoint: Endpoint, exchange: Callable[[], Answer | NoAnswerError]
    ) -> Answer | HeapBrazeError:
        """Send once; return the answer where it is a success, else what is wrong."""
        if self._interrupted:
            raise InterruptedCallError("The delivery was interrupted; this request was not sent.")
        outcome = exchange()
        if isinstance(outcome, NoAnswerError):
            self.statistics.count("no answer")
            return outcome
        self.statistics.count(str(outcome.status))
        endpoint.budget.observe(outcome.headers)
        error = endpoint.error_of(outcome)
        if isinstance(error, TransientError):
            read = told_wait if isinstance(error, RateLimitedError) else retry_after
            error.retry_after = read(outcome.headers, now=self._clock.now())
        return error or outcome

    def _exchange(self, endpoint: Endpoint, request: requests.PreparedRequest) -> Answer | NoAnswerError:
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        # The adapter is called straight: a session would look where a redirect leads, and keep cookies. The
        # error is made outside of the handler, because the exception of requests holds the request, keys and
        # all, and would hang on ours.
        try:
            response = self._adapter.send(request, timeout=self._timeout, **self._settings)
            return Answer(response.status_code, response.headers, response.content or b"")
        except (RequestException, HTTPError) as problem:
            kind = type(problem).__name__
        return NoAnswerError(
            f"{endpoint.name} gave no answer ({kind}); whether it took the request is not known."
        )

    def _stream(
        self,
        endpoint: Endpoint,
        request: requests.PreparedRequest,
        take: Callable[[Answer, Iterator[bytes]], None] | None,
    ) -> Answer | NoAnswerError:
        """Exchange once, and leave the body unread but for ``take``; errors are made as in ``_exchange``."""
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        url = str(request.url)
        settings = {**_settings(self._session, url), "stream": True}
        try:
            adapter = self._session.get_adapter(url)
            with closing(adapter.send(request, timeout=self._timeout, **settings)) as response:
                answer = Answer(response.status_code, response.headers, b"")
                if take is not None and endpoint.error_of(answer) is None:
                    take(answer, self._blocks(response))
                return answer
        except (RequestException, HTTPError) as problem:
            kind = type(problem).__name__
        return NoAnswerError(f"{endpoint.name} was not answered to the end ({kind}).")

    def _blocks(self, response: requests.Response) -> Iterator[bytes]:
        # urllib3 before 2 takes a body that is shorter than announced for whole, if not told otherwise.
        response.raw.enforce_content_length = True
        for block in response.raw.stream(BLOCK, decode_content=False):
            if self._interrupted:
                raise InterruptedCallError("The download was interrupted.")
            yield block

    def _wait(self, error: HeapBrazeError, seconds: float) -> None:
        log.warning("%s Next try in %.1f s.", error, seconds)
        until = self._clock.monotonic() + seconds
        waited = wait(self._clock, lambda: until - self._clock.monotonic(), self._is_interrupted)
        self.statistics.waited(waited)

    def _is_interrupted(self) -> bool:
        return self._interrupted


class Statistics:
    """What a transport did, for reports; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_status: Counter[str] = Counter()
        self._waits = 0
        self._seconds_waited = 0.0

    def count(self, status: str) -> None:
        """Count a request by its answer."""
        with self._lock:
            self._by_status[status] += 1

    def waited(self, seconds: float) -> None:
        """Count a wait between two tries."""
        with self._lock:
            self._waits += 1
            self._seconds_waited += seconds

    def as_dict(self) -> dict[str, Any]:
        """Return requests, waits between tries, the sum of their seconds over all threads, and statuses."""
        with self._lock:
            return {
                "requests": self._by_status.total(),
                "waits": self._waits,
                "seconds_waited": round(self._seconds_waited, 3),
                "by_status": dict(sorted(self._by_status.items())),
            }


class _Schedule:
    """When one request is tried again, and when it is given up."""

    def __init__(self, policy: RetryPolicy, clock: Clock, random: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._random = random
        self._give_up_at = clock.monotonic() + policy.patience
        self._tries_left = policy.attempts
        self._backoff = policy.first

    def seconds_after(self, error: HeapBrazeError) -> float:
        """Return how long to wait; raise the error where it is final."""
        if not isinstance(error, TransientError):
            raise error
        if not isinstance(error, WAITS):
            self._tries_left -= 1
        seconds = self._seconds(error.retry_after)
        if not self._tries_left or self._clock.monotonic() + seconds > self._give_up_at:
            raise error
        return seconds

    def _seconds(self, told: float | None) -> float:
        if told is not None:
            # A little more than told: all who were told the same do not come back at once.
            return told + self._policy.first * self._random()
        backoff = self._backoff
        self._backoff = min(2 * backoff, self._policy.cap)
        return backoff * self._random()


def _encoded(body: object) -> bytes:
    try:
        return encode(body)
    except UnicodeEncodeError:  # half of a surrogate pair: only an escape can carry it
        return dumps(body, separators=(",", ":")).encode()


def _settings(session: requests.Session, url: str) -> dict[str, Any]:
    """Return the session's settings for TLS and proxies, with the environment's, as adapters take them."""
    settings = dict(session.merge_environment_settings(url, {}, None, session.verify, None))
    settings["stream"] = False
    if url.startswith("http:"):
        settings["proxies"] = {}  # what is readable never leaves this machine
    return settings


def _make_room(adapter: BaseAdapter, connections: int) -> None:
    """Let the adapter keep so many connections open; the socket options that it came with stay."""
    from requests.adapters import HTTPAdapter

    if isinstance(adapter, HTTPAdapter):
        adapter.poolmanager.connection_pool_kw["maxsize"] = connections
