"""Open a file of a source: find out by its content what it is, and give its events."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, cast

from airflow_provider_heapbraze.events import avro, json_forms
from airflow_provider_heapbraze.events.errors import FileSetAsideError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyroaring import BitMap

    from airflow_provider_heapbraze.events.currents import EventReader

COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
GONE = "it is gone: it was there when the folder was listed"
JSON_BEGINS = (b"{", b"[")


def read_events(file: Path, event_type: str, done: BitMap) -> EventReader:
    """Give the events of a file whose rows are not done, with their row numbers.

    Rows are numbered from 0 in the order of the file, in the same way at every reading.

    :param file: on the local disk.
    :param event_type: as the path says it, where the file does not.
    :param done: rows to pass over.
    :returns: the number of events in the file.
    :raises FileSetAsideError: the file cannot be read, or not to its end; good rows came before.
    """
    with _content(file) as content:
        begin = content.peek(64)
        if begin.startswith(avro.MAGIC):
            return (yield from avro.read_avro(content, event_type, done))
        if _is_json(begin):
            return (yield from json_forms.read_json(content, event_type, done))
        raise FileSetAsideError(_foreign(begin))


@contextmanager
def _content(file: Path) -> Iterator[io.BufferedReader]:
    """Open a file; a compressed one, as if it were not."""
    try:
        with file.open("rb") as packed:
            begin = packed.read(4)
    except FileNotFoundError:
        raise FileSetAsideError(GONE) from None
    compression = next((name for magic, name in COMPRESSIONS.items() if begin.startswith(magic)), None)
    if compression is None:
        with file.open("rb") as plain:
            yield plain
        return
    import pyarrow as pa

    with pa.input_stream(str(file), compression=compression) as stream:
        yield io.BufferedReader(cast("io.RawIOBase", _Raw(stream)), 1 << 20)


class _Raw(io.RawIOBase):
    """An Arrow stream, as :mod:`io` wants it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._position = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._stream.read(len(buffer))
        except OSError as error:
            if error.errno:
                raise  # the disk's fault, not the file's
            raise FileSetAsideError("its compressed content is cut off or damaged") from None
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _is_json(begin: bytes) -> bool:
    return begin.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(JSON_BEGINS)


def _foreign(begin: bytes) -> str:
    if not begin:
        return "it is empty; Braze writes no empty file, so it may be cut off, or still being written"
    if begin.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is text in UTF-16, not in UTF-8"
    return "it is neither Avro nor JSON"
