"""Currents as JSON: single events and batches, a line each or over many lines, with or without unions."""

from __future__ import annotations

import json
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_heapbraze.events.currents import (
    CurrentsEvent,
    from_http,
    from_record,
    parse,
    without_unions_of,
)
from airflow_provider_heapbraze.events.errors import FileSetAsideError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyroaring import BitMap

    from airflow_provider_heapbraze.events.currents import EventReader

CHUNK = 1 << 20
# Braze sends no event over 900 KB, and about 100 of them together.
LONGEST = 128 << 20
SOME_FIELD_OF_EVERY_EVENT = frozenset({"id", "time", "event_type", "user_id", "external_user_id"})
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BETWEEN_DOCUMENTS = " \t\r\n,[]\ufeff"


def read_json(file: IO[bytes], event_type: str, done: BitMap) -> EventReader:
    """Give the events of a file whose rows are not done, with their row numbers.

    Lines that are no JSON are passed over, and reported at the end.

    :param event_type: as the path says it, for flat records, which do not.
    :returns: the number of events in the file.
    :raises FileSetAsideError: some of it is no JSON, no UTF-8, or not of Currents.
    """
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

    def values(self) -> Iterator[Any]:
        """Give one value per line; or, where the first line alone is no JSON, values that span lines."""
        lines = self._lines()
        first = next(lines, b"").removeprefix(BYTE_ORDER_MARK)
        try:
            yield parse(first)
        except ValueError:
            yield from self._documents(first, lines)
            return
        for line in lines:
            try:
                yield parse(line)
            except UnicodeDecodeError:
                self.reject("no UTF-8")
            except ValueError:
                self.reject("no JSON")

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

    def _lines(self) -> Iterator[bytes]:
        """Give the lines that are not blank."""
        rest = b""
        for chunk in self._chunks:
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                self._number += 1
                if line and not line.isspace():
                    yield line
            if len(rest) > LONGEST:
                raise FileSetAsideError(
                    f"line {self._number + 1:,} is longer than {LONGEST >> 20} MiB: no event and no batch of "
                    "Braze is"
                )
        if rest.strip():
            self._number += 1
            yield rest

    def _documents(self, first: bytes, lines: Iterator[bytes]) -> Iterator[Any]:
        """Give values that span lines, one after another, or as the items of one list."""
        decoder = json.JSONDecoder()
        text, fresh = "", ""
        for line in chain([first], lines):
            try:
                fresh += line.decode() + "\n"
            except UnicodeDecodeError:
                raise FileSetAsideError(f"line {self._number:,} is no UTF-8") from None
            # Only a closing bracket ends a value; trying after each line would cost the square of the size.
            if not fresh.rstrip(BETWEEN_DOCUMENTS).endswith("}"):
                continue
            text, fresh = text + fresh, ""
            while text := text.lstrip(BETWEEN_DOCUMENTS):
                try:
                    value, end = decoder.raw_decode(text)
                except (ValueError, RecursionError):
                    break
                yield value
                text = text[end:]
            if len(text) > LONGEST:
                raise FileSetAsideError(f"a value before line {self._number:,} does not end")
        if (text + fresh).strip(BETWEEN_DOCUMENTS):
            raise FileSetAsideError(f"it is no JSON, or cut off, near line {self._number:,}")


def _events(value: Any) -> list[dict[str, Any]] | None:
    """Return the events in a value: a batch, a list, or one; None where it is nothing of Currents."""
    batch = value.get("events") if isinstance(value, dict) else value
    if isinstance(batch, list):
        return batch if all(isinstance(event, dict) for event in batch) else None
    if isinstance(value, dict) and not SOME_FIELD_OF_EVERY_EVENT.isdisjoint(value):
        return [value]
    return None


def _one(event: dict[str, Any], event_type: str) -> CurrentsEvent:
    nested = isinstance(event.get("user"), dict) or isinstance(event.get("properties"), dict)
    if nested and "event_type" in event:
        return from_http(event)
    return from_record(without_unions_of(event), event_type)
