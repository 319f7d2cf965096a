"""Currents as JSON: single events and batches, a line each or over many lines, with or without unions."""

from __future__ import annotations

import json
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_heapbraze.events.currents import (
    CurrentsEvent,
    from_http,
    from_record,
    is_http,
    normal_type,
    parse,
    without_unions_of,
)
from airflow_provider_heapbraze.events.errors import FileSetAsideError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from pyroaring import BitMap

    from airflow_provider_heapbraze.events.currents import EventReader

CHUNK = 1 << 20
# Braze sends no event over 900 KB, and about 100 of them together.
LONGEST = 128 << 20
SOME_FIELD_OF_EVERY_EVENT = frozenset({"id", "time", "event_type", "user_id", "external_user_id"})
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LIST_BRACKETS = {"[": 1, "]": -1}
OPEN_ENDS = (b"[", b"{", b",")
BETWEEN_DOCUMENTS = " \t\r\n,[]"


def read_json(file: IO[bytes], event_type: str, done: BitMap) -> EventReader:
    """Give the events of a file whose rows are not done, with their row numbers.

    Lines that are no JSON are passed over, and reported at the end.

    :param event_type: as the path says it, for flat records, which do not.
    :returns: the number of events in the file.
    :raises FileSetAsideError: some of it is no JSON, no UTF-8, or not of Currents.
    """
    event_type = normal_type(event_type)
    row = 0
    lines = Lines(file)
    try:
        for value in lines.values():
            events = _events(value)
            if events is None:
                lines.reject("no event of Currents")
                continue
            for event in events:
                if row not in done:
                    yield row, _one(event, event_type)
                row += 1
        lines.check()
    except FileSetAsideError as error:
        error.rows = row
        raise
    return row


class Lines:
    """The JSON values of a file, and what was wrong with the lines that hold none."""

    def __init__(self, file: IO[bytes]) -> None:
        self._chunks = iter(lambda: file.read(CHUNK), b"")
        self._number = 0
        self._rejected = 0
        self._first_reason = ""
        self._open_lists = 0

    def values(self) -> Iterator[Any]:
        """Give one value per line; or, where neither of the first two is one, values that span lines."""
        lines = self._lines()
        begin = [*islice(lines, 2)]
        whole = chain(begin, lines)
        spanning = all(not _is_json(line) for _, line in begin) or begin[0][1].rstrip().endswith(OPEN_ENDS)
        yield from self._spanning(whole) if spanning else self._one_each(whole)

    def reject(self, reason: str) -> None:
        """Note that the present line holds no event."""
        self._rejected += 1
        self._first_reason = self._first_reason or f"line {self._number:,} is {reason}"

    def check(self) -> None:
        """Fail where a line was rejected.

        :raises FileSetAsideError: one was; it is named.
        """
        if self._rejected:
            more = f", and {self._rejected - 1:,} more" if self._rejected > 1 else ""
            raise FileSetAsideError(f"{self._first_reason}{more}; the other lines were read")

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Give the lines that are not blank, with their numbers."""
        pieces: list[bytes] = []  # of a line that has not ended; joined once, however long it is
        size = number = 0
        for chunk in self._chunks:
            first, *others = chunk.split(b"\n")
            pieces.append(first)
            size += len(first)
            if others:
                ended = (b"".join(pieces), *others[:-1])
                pieces, size = others[-1:], len(others[-1])
                for line in ended:
                    number += 1
                    if not _is_blank(line):
                        yield number, line.removeprefix(BYTE_ORDER_MARK)
            if size > LONGEST:
                raise FileSetAsideError(
                    f"line {number + 1:,} is longer than {LONGEST >> 20} MiB: no event and no batch of "
                    "Braze is"
                )
        line = b"".join(pieces)
        if not _is_blank(line):
            yield number + 1, line.removeprefix(BYTE_ORDER_MARK)

    def _one_each(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[Any]:
        for self._number, line in lines:
            try:
                yield parse(line)
            except UnicodeDecodeError:
                self.reject("no UTF-8")
            except ValueError:
                self.reject("no JSON")

    def _spanning(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[Any]:
        """Give values that span lines, one after another, or as the items of one list."""
        text, tried = "", 0
        for self._number, line in lines:
            try:
                text += line.decode() + "\n"
            except UnicodeDecodeError:
                raise FileSetAsideError(f"line {self._number:,} is no UTF-8") from None
            # Only a bracket ends a value; and to try at each of them would cost the square of its size.
            may_end = line.rstrip(b" \t\r,]").endswith(b"}") and len(text) > tried + tried // 2
            if may_end or not tried:
                text = yield from self._values_in(text)
                tried = len(text)
            if len(text) > LONGEST:
                raise FileSetAsideError(f"a value before line {self._number:,} does not end")
        text = yield from self._values_in(text)
        if text or self._open_lists:
            raise self._no_json()

    def _no_json(self) -> FileSetAsideError:
        return FileSetAsideError(f"it is no JSON, or cut off, near line {self._number:,}")

    def _values_in(self, text: str) -> Generator[Any, None, str]:
        """Give the whole values at the beginning of a text; return what is left of it."""
        decoder = json.JSONDecoder()
        position = 0
        while True:
            while position < len(text) and text[position] in BETWEEN_DOCUMENTS:
                self._open_lists += LIST_BRACKETS.get(text[position], 0)
                position += 1
            try:
                value, position = decoder.raw_decode(text, position)
            except RecursionError:
                raise FileSetAsideError(
                    f"a value before line {self._number:,} is nested too deeply"
                ) from None
            except json.JSONDecodeError as error:
                rest = text[position:]
                more_may_follow = error.msg.startswith("Unterminated") or not text[error.pos :].strip()
                if rest and not more_may_follow:
                    raise self._no_json() from None
                return rest
            except ValueError:  # a number of more digits than Python takes
                raise self._no_json() from None
            yield value


def _is_blank(line: bytes) -> bool:
    return not line or line.isspace()


def _is_json(line: bytes) -> bool:
    try:
        parse(line)
    except ValueError:
        return False
    return True


def _events(value: Any) -> list[dict[str, Any]] | None:
    """Return the events in a value: a batch, a list, or one; None where it is nothing of Currents."""
    batch = value.get("events") if isinstance(value, dict) else value
    if isinstance(batch, list):
        return batch if all(isinstance(event, dict) for event in batch) else None
    if isinstance(value, dict) and not SOME_FIELD_OF_EVERY_EVENT.isdisjoint(value):
        return [value]
    return None


def _one(event: dict[str, Any], event_type: str) -> CurrentsEvent:
    if is_http(event):
        return from_http(event, event_type)
    return from_record(without_unions_of(event), event_type)
