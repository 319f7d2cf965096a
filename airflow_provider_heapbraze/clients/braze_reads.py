"""What can be read of a Braze workspace: its segments, who is in them, and profiles.

Cohorts and their members cannot be: Braze has no endpoint for that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.clients.answers import Endpoint, says
from airflow_provider_heapbraze.clients.braze_answers import REST_RULES
from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK
from airflow_provider_heapbraze.clients.download import SignedFiles
from airflow_provider_heapbraze.clients.errors import (
    ConfigurationError,
    ExportRunningError,
    RateLimitedError,
    UnclearAnswerError,
)
from airflow_provider_heapbraze.clients.waiting import lower_case, number, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from airflow_provider_heapbraze.clients.answers import Answer, Rules
    from airflow_provider_heapbraze.clients.budget import Pacer
    from airflow_provider_heapbraze.clients.clock import Clock
    from airflow_provider_heapbraze.clients.errors import HeapBrazeError
    from airflow_provider_heapbraze.clients.transport import Transport

SEGMENTS_PER_PAGE = 100
MOST_DAYS = 100
PROFILES_PER_REQUEST = 50
# A prefix becomes part of a path: it names no folder, and nothing hidden.
PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class SegmentInfo:
    """A segment as Braze lists it.

    :param id: its Segment API Identifier.
    :param name: as the dashboard shows it.
    """

    id: str
    name: str


@dataclass(frozen=True)
class SizeOfDay:
    """How many users a segment had, as Braze estimates it.

    :param day: in the workspace's time zone.
    :param size: users.
    """

    day: date
    size: int


@dataclass(frozen=True)
class Profiles:
    """Who of those who were asked for exists; the repr shows nobody.

    :param users: in no order, with the fields that were asked for.
    :param unknown: external ids that nobody has.
    """

    users: list[Mapping[str, Any]] = field(repr=False)
    unknown: frozenset[str] = field(repr=False)


@dataclass(frozen=True)
class StartedExport:
    """An export that Braze makes by now; the repr does not show the URL.

    :param object_prefix: the folder of its files, in the workspace's own storage.
    :param url: where its ZIP is going to be, for a few hours, and open to whoever knows the URL; None where
        the workspace has a storage of its own.
    """

    object_prefix: str
    url: str | None = field(repr=False)


def _segments(body: Any) -> list[SegmentInfo]:
    return [SegmentInfo(_text(one["id"]), _text(one["name"])) for one in _list(body["segments"])]


def _segment_name(body: Any) -> str:
    return _text(body["name"])


def _sizes(body: Any) -> list[SizeOfDay]:
    days = [SizeOfDay(_day(one["time"]), _count(one["size"])) for one in _list(body["data"])]
    return sorted(days, key=lambda size: size.day)


def _started_export(body: Any) -> StartedExport:
    prefix, url = _text(body["object_prefix"]), body.get("url") or None
    if not PLAIN_NAME.fullmatch(prefix):
        raise ValueError
    return StartedExport(prefix, url if url is None else _text(url))


def _profiles(body: Any) -> Profiles:
    users = _list(body["users"])
    if not all(isinstance(profile, dict) for profile in users):
        raise TypeError
    return Profiles(users, frozenset(map(str, _list(body.get("invalid_user_ids") or []))))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError
    return value


def _day(value: Any) -> date:
    return datetime.fromisoformat(_text(value)).date()


def _can_read(read: Callable[[Any], object], body: Any) -> bool:
    """Tell whether an answer is what Braze documents, without showing what it holds."""
    try:
        read(body)
    except (KeyError, TypeError, ValueError):
        return False
    return not body.get("errors")


def _readable(read: Callable[[Any], object], rules: Rules = REST_RULES) -> Rules:
    """Make a success that cannot be read none."""

    def rule(endpoint: Endpoint, answer: Answer) -> HeapBrazeError | None:
        error = rules[2](endpoint, answer)
        if error is None and not _can_read(read, answer.body):
            return UnclearAnswerError(
                f"{endpoint.name} answered {answer.status}, but not with what Braze documents."
            )
        return error

    return {**rules, 2: rule}


def _export_refused(endpoint: Endpoint, answer: Answer) -> HeapBrazeError:
    """Tell a limit that is used up from an export that is running: both are a 429."""
    remaining = number(lower_case(answer.headers).get("x-ratelimit-remaining", ""))
    used_up = remaining is not None and remaining < 1
    if used_up or retry_after(answer.headers, now=0.0) is not None:
        return RateLimitedError(f"{endpoint.name} answered 429: too many requests.")
    return ExportRunningError(
        f"{endpoint.name} answered 429 while the rate limit is not used up: an export of this segment is "
        "running, and Braze runs one at a time. Come back when it has ended."
    )


_NO_SEGMENT = says(
    ConfigurationError,
    "{endpoint} answered {status}: this workspace has no segment with that id. Look at segment_id in the "
    "DAG: Braze shows it as Segment API Identifier on the segment's page and under Settings > APIs and "
    "Identifiers.",
)
_DETAILS_RULES: Rules = {**_readable(_segment_name), 400: _NO_SEGMENT, 404: _NO_SEGMENT}
_SIZES_RULES: Rules = {**_readable(_sizes), 400: _NO_SEGMENT, 404: _NO_SEGMENT}
_EXPORT_RULES: Rules = {
    **REST_RULES,
    400: _NO_SEGMENT,
    404: _NO_SEGMENT,
    429: _export_refused,
}


class BrazeReads:
    """What can be read of one Braze workspace; nothing here changes it.

    :param transport: to the instance's REST endpoint.
    :param bearer: gives the header with the REST API key.
    :param pool: the budget that segments share with other endpoints.
    :param ids: the budget of ``/users/export/ids``.
    """

    def __init__(
        self,
        transport: Transport,
        bearer: Callable[[], dict[str, str]],
        *,
        pool: Pacer,
        ids: Pacer,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._transport = transport
        self._bearer = bearer
        self._files = SignedFiles(transport, "Braze export file", clock=clock)
        self._list = Endpoint("Braze segment list", pool, _readable(_segments), "segments.list")
        self._details = Endpoint("Braze segment details", pool, _DETAILS_RULES, "segments.details")
        self._series = Endpoint("Braze segment sizes", pool, _SIZES_RULES, "segments.data_series")
        self._export = Endpoint("Braze segment export", pool, _EXPORT_RULES, "users.export.segment")
        self._profiles = Endpoint("Braze profiles", ids, _readable(_profiles), "users.export.ids")

    def segments(self) -> Iterator[SegmentInfo]:
        """Give every segment of the workspace, and ask for a page when it is come to (Braze: Segment list).

        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        before: list[SegmentInfo] = []
        for page in count():
            segments = _segments(self._get(self._list, "/segments/list", page=str(page)))
            if page and segments == before:
                raise UnclearAnswerError(
                    "Braze segment list gave one page twice; whether there are more is not known."
                )
            yield from segments
            if len(segments) < SEGMENTS_PER_PAGE:
                return
            before = segments

    def segment_name(self, segment_id: str) -> str:
        """Return a segment's name (Braze: Segment details).

        :param segment_id: its Segment API Identifier.
        :raises ConfigurationError: there is no such segment in this workspace.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        return _segment_name(self._get(self._details, "/segments/details", segment_id=segment_id))

    def sizes(self, segment_id: str, days: int) -> list[SizeOfDay]:
        """Return a segment's size day by day, oldest first; an estimate (Braze: Segment analytics).

        :param segment_id: its Segment API Identifier.
        :param days: the last so many, from 1 to 100.
        :raises ConfigurationError: Braze does not take so many days.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        if not 1 <= days <= MOST_DAYS:
            raise ConfigurationError(
                f"Braze gives the sizes of 1 to {MOST_DAYS} days, not of {days}. Nothing was sent."
            )
        params = {"segment_id": segment_id, "length": str(days)}
        return _sizes(self._get(self._series, "/segments/data_series", **params))

    def start_export(self, segment_id: str, fields: Sequence[str]) -> StartedExport:
        """Have Braze write a segment's users into files (Braze: Export users by segment).

        Braze runs one export of a segment at a time, and 100 of a company. Where the answer is lost, the
        export may run already: the request is sent again as others are, Braze then says that one is running,
        and so does this. Nobody can say whether that one is ours; when it has ended, another can be started.

        :param segment_id: its Segment API Identifier.
        :param fields: of each user; at least one.
        :raises ExportRunningError: an export of this segment is running. That is Braze's 429 while its
            headers do not say that the rate limit is used up.
        :raises UnclearAnswerError: it was started, but how its files are named is not known.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        body = {"segment_id": segment_id, "fields_to_export": list(fields), "output_format": "zip"}
        answered = self._post(self._export, "/users/export/segment", body)
        if not _can_read(_started_export, answered):
            # No rule of the endpoint: that would send the request again, and Braze runs the first.
            raise UnclearAnswerError(
                "Braze segment export was started, but the answer is not what Braze documents."
            )
        return _started_export(answered)

    def is_ready(self, url: str) -> bool:
        """Tell whether an export's file is there; nothing of it is read.

        False means not ready yet, or expired: the two look the same (403, 404), and Braze tells of a failed
        export by e-mail only. Whoever waits needs a deadline.

        :param url: of :class:`StartedExport`.
        :raises ConfigurationError: it is no https address.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        return self._files.is_there(url)

    def download(self, url: str, file: Path, *, most_bytes: int) -> None:
        """Write an export's file to local disk; where that fails, nothing is left there.

        :param url: of :class:`StartedExport`.
        :param file: on local disk; what is there is replaced.
        :param most_bytes: larger ones are refused.
        :raises ConfigurationError: the URL is no https address.
        :raises ExportGoneError: the file is not ready, or the URL has expired.
        :raises DownloadTooLargeError: the file is larger than ``most_bytes``.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        self._files.save(url, file, most_bytes=most_bytes)

    def profiles(
        self,
        external_ids: Sequence[str],
        aliases: Sequence[tuple[str, str]],
        fields: Sequence[str],
        *,
        check: Callable[[], None] | None = None,
    ) -> Profiles:
        """Return the profiles of those who exist (Braze: Export users by identifier).

        :param external_ids: with the aliases, at most 50.
        :param aliases: (name, label).
        :param fields: of each profile; what is empty there is left out by Braze.
        :param check: called right before each try; where it raises, nothing is sent.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        people = {
            "external_ids": list(external_ids),
            "user_aliases": [{"alias_name": name, "alias_label": label} for name, label in aliases],
        }
        given = {kind: some for kind, some in people.items() if some}
        body = {**given, "fields_to_export": list(fields)}
        return _profiles(self._post(self._profiles, "/users/export/ids", body, check))

    def _get(self, endpoint: Endpoint, path: str, **params: str) -> Any:
        return self._transport.send(endpoint, "GET", path, params=params, headers=self._bearer()).body

    def _post(
        self,
        endpoint: Endpoint,
        path: str,
        body: Mapping[str, Any],
        check: Callable[[], None] | None = None,
    ) -> Any:
        headers = self._bearer()
        return self._transport.send(endpoint, "POST", path, json=body, headers=headers, check=check).body
