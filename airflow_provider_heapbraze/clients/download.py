"""Files behind signed URLs: on other hosts, and open to whoever knows the URL, so nobody gets to see it."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.address import check_signed_url
from airflow_provider_heapbraze.clients.answers import BASIC_RULES, Endpoint, accepted, says
from airflow_provider_heapbraze.clients.budget import Budget
from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK
from airflow_provider_heapbraze.clients.errors import (
    ConfigurationError,
    DownloadTooLargeError,
    ExportGoneError,
    PermanentError,
    UnclearAnswerError,
)
from airflow_provider_heapbraze.clients.transport import USER_AGENT
from airflow_provider_heapbraze.clients.waiting import lower_case, number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import requests

    from airflow_provider_heapbraze.clients.answers import Answer, Rules
    from airflow_provider_heapbraze.clients.clock import Clock
    from airflow_provider_heapbraze.clients.errors import HeapBrazeError
    from airflow_provider_heapbraze.clients.transport import Transport

# No key of ours goes along. The file is wanted as it is stored: its announced length is then its size.
_HEADERS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
# Storages document no limit; this one holds requests back after a 429.
_REQUESTS, _SECONDS = 100, 1.0
# Those of urllib3's modules that put whole URLs into log lines.
_TELLTALES = ("connection", "connectionpool", "poolmanager", "response", "util.retry")


def _as_stored(endpoint: Endpoint, answer: Answer) -> HeapBrazeError | None:
    encoding = lower_case(answer.headers).get("content-encoding", "identity")
    if encoding.lower() in {"", "identity"}:
        return None
    return UnclearAnswerError(f"{endpoint.name} came in an encoding that was not asked for.")


_GONE = says(
    ExportGoneError,
    "{endpoint} answered {status}: it is not ready, or its URL has expired. The two look the same.",
)
_RULES: Rules = {
    1: BASIC_RULES[1],
    2: says(UnclearAnswerError, "{endpoint} answered {status}, which is not a whole file."),
    3: says(
        PermanentError,
        "{endpoint} answered {status}: it wants the request to go elsewhere. That is not done: whoever knows "
        "the URL has the file.",
    ),
    4: _GONE,  # storages say in many ways that a URL is of no use: 403, 404, 400 with "expired"
    5: BASIC_RULES[5],
    200: _as_stored,
    408: BASIC_RULES[408],
    429: BASIC_RULES[429],
}


class SignedFiles:
    """Files that are read by a URL which is their key, too.

    Requests are GET, because a URL is signed for one method. They carry no key and no cookie, and redirects
    are not followed.

    :param transport: asked for its session's TLS and proxy settings, its timeout and its retries.
    :param name: what the files are, for people: log lines and messages.
    """

    def __init__(self, transport: Transport, name: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._transport = transport
        self._file = Endpoint(name, Budget(_REQUESTS, _SECONDS, clock=clock), _RULES)
        self._look = replace(self._file, rules={**_RULES, 200: accepted, 4: accepted})

    def is_there(self, url: str) -> bool:
        """Tell whether there is a file; nothing of it is read.

        :raises ConfigurationError: the URL is no https address.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        request = _prepare(url)
        with _silence():
            return self._transport.fetch(self._look, request).status == HTTPStatus.OK

    def save(self, url: str, file: Path, *, most_bytes: int) -> None:
        """Write a file to local disk, in place of one that is there; where that fails, nothing is left.

        A download that is cut begins again.

        :raises ConfigurationError: the URL is no https address.
        :raises ExportGoneError: the file is not ready, or the URL has expired.
        :raises DownloadTooLargeError: it has more than ``most_bytes`` bytes.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        request = _prepare(url)

        def take(answer: Answer, blocks: Iterator[bytes]) -> None:
            _refuse_above(most_bytes, number(lower_case(answer.headers).get("content-length", "")) or 0)
            _write(file, blocks, most_bytes)

        try:
            with _silence():
                self._transport.fetch(self._file, request, take)
        except BaseException:
            file.unlink(missing_ok=True)
            raise


def _prepare(url: str) -> requests.PreparedRequest:
    import requests

    # What is checked is what is sent: requests puts some URLs in order. Its errors quote the URL, so they end
    # here.
    try:
        request = requests.Request("GET", url, headers=_HEADERS).prepare()
    except (requests.RequestException, ValueError):
        request = None
    if request is None:
        raise ConfigurationError("The signed URL is no address. Nothing was sent.")
    check_signed_url(str(request.url))
    return request


def _write(file: Path, blocks: Iterator[bytes], most_bytes: int) -> None:
    size = 0
    with file.open("wb") as opened:
        for block in blocks:
            size += len(block)
            _refuse_above(most_bytes, size)
            opened.write(block)


def _refuse_above(most_bytes: int, size: float) -> None:
    if size > most_bytes:
        raise DownloadTooLargeError(
            f"A file to download has more than {most_bytes:,} bytes, which is the most it may have. Nothing "
            "of it was kept."
        )


_silent: ContextVar[bool] = ContextVar("heapbraze_silent", default=False)


def _may_speak(_record: logging.LogRecord) -> bool:
    return not _silent.get()


# Set once and never taken away: while a filter is removed, another thread's line could pass.
for _module in _TELLTALES:
    logging.getLogger(f"urllib3.{_module}").addFilter(_may_speak)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep urllib3 from logging what this thread sends."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)
