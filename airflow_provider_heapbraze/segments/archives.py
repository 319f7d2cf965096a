"""The files of an export, which come packed from outside: read as a stream, and believed in nothing.

What a header says about sizes is never relied on: what is unpacked is counted. No entry's name is used as a
path or shown, and no content is in an error: it holds identifiers.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_heapbraze.clients.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30
PACKED = 1 << 16  # bytes that are read from the disk at once
BLOCK = MIB  # bytes that are unpacked at once, and the size from which lines are given on
LONGEST_LINE = 16 * MIB
UNJUDGED = MIB  # unpacked bytes before the ratio is looked at: a small file of empty lines packs very well
DIRECTORY_ENTRY = 256  # bytes of a ZIP's directory for one entry: more than it takes

ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # the second is a ZIP without entries
GZIP_START = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
JSON_SPACE = b" \t\r\n"

ENCRYPTED = 0x1 | 0x40 | 0x2000  # the entry; with strong encryption; its headers
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature … lengths of the name and of the extra field
DESCRIPTOR = 24  # most bytes between the data of an entry and the next: sizes and CRC of a streamed one
END_RECORD = struct.Struct("<4s6xH10x")  # signature … how many entries; a comment follows
IN_ZIP64 = 0xFFFF  # instead of a number: another record has it

RAW_DEFLATE = -zlib.MAX_WBITS
GZIP = zlib.MAX_WBITS + 16  # zlib then looks at the header, the CRC and the length of gzip itself

DAMAGED = "is cut off or damaged"
AGAIN = "Clear the task to make a new export."
NOT_OURS = "See who else writes to where it was found, then clear the task to make a new export."


class UnusableExportError(PermanentError):
    """A file of an export cannot be used as it is; nothing was sent."""


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may unpack to.

    :param entry_bytes: unpacked bytes of one file in an archive.
    :param total_bytes: unpacked bytes of one archive.
    :param ratio: unpacked to packed bytes; looked at after the first MiB of unpacked data.
    :param entries: files in a ZIP, or members of a gzip file.
    """

    entry_bytes: int = GIB
    total_bytes: int = 64 * GIB
    ratio: int = 200
    entries: int = 100_000


DEFAULT_LIMITS = ArchiveLimits()


def json_lines(archive: Path, name: str, limits: ArchiveLimits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """Give the lines of an archive in blocks of whole lines (about 1 MiB), each ending with a newline.

    Each line begins with ``{`` and ends with ``}``, and is UTF-8; whether it is JSON is not looked at. Blank
    lines, and white space around a line, are dropped. Checksums are only known at the end of an entry: what
    was given before an error is of no use.

    :param archive: a local file: ZIP or gzip, which its content says and not its name.
    :param name: what messages call it.
    :param limits: what it may unpack to.
    :raises UnusableExportError: the archive is damaged, too large, or nothing that Braze exports.
    """
    try:
        yield from _lines_of(archive, limits)
    except _FlawError as flaw:
        what, advice = flaw.what, flaw.advice
    else:
        return
    raise UnusableExportError(f"{name} {what}. Nothing was sent. {advice}")


class _FlawError(Exception):
    """What is wrong with an archive; it becomes the error that people see."""

    def __init__(self, what: str, advice: str = AGAIN) -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice


def _lines_of(archive: Path, limits: ArchiveLimits) -> Iterator[bytes]:
    with archive.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        meter = _Meter(limits, archive.stat().st_size)
        if start.startswith(ZIP_STARTS):
            for content in _zip_entries(archive, file, limits, meter):
                yield from _lines(content)
        elif start.startswith(GZIP_START):
            unpacked = _inflated(_packed(file, meter.packed), GZIP, limits.entries)
            yield from _lines(meter.counted(unpacked, meter.packed))
        elif not start:
            raise _FlawError("is empty, and not even an archive")
        else:
            raise _FlawError("is neither ZIP nor gzip: it is no export of Braze's", NOT_OURS)


class _Meter:
    """Counts what is unpacked of an archive, and stops it at the limits.

    :param packed: bytes of the archive.
    """

    def __init__(self, limits: ArchiveLimits, packed: int) -> None:
        self.packed = packed
        self._limits = limits
        self._total = 0

    def counted(self, content: Iterator[bytes], packed: int) -> Iterator[bytes]:
        """Give on the content of an entry that takes so many bytes of the archive."""
        size = 0
        for chunk in content:
            size += len(chunk)
            self._total += len(chunk)
            self._look(size, packed)
            yield chunk

    def _look(self, size: int, packed: int) -> None:
        limits = self._limits
        if size > limits.entry_bytes:
            raise _FlawError(f"unpacks to more than {limits.entry_bytes:,} bytes in one file", NOT_OURS)
        if self._total > limits.total_bytes:
            raise _FlawError(f"unpacks to more than {limits.total_bytes:,} bytes", NOT_OURS)
        # Of the whole as well: many small entries, or entries that share their bytes, are a bomb together.
        for unpacked, source in ((size, packed), (self._total, self.packed)):
            if unpacked > max(UNJUDGED, limits.ratio * source):
                raise _FlawError(f"unpacks to more than {limits.ratio} times its size", NOT_OURS)


def _lines(content: Iterator[bytes]) -> Iterator[bytes]:
    """Give the lines of one file, in blocks."""
    rest = bytearray()
    for chunk in _without_bom(content):
        rest += chunk
        if len(rest) < BLOCK:
            continue
        end = rest.rfind(b"\n") + 1
        if not end and len(rest) > LONGEST_LINE:
            raise _FlawError("holds a line that is too long", NOT_OURS)
        if end:
            yield from _checked(bytes(rest[:end]))
            del rest[:end]
    yield from _checked(bytes(rest))


def _without_bom(content: Iterator[bytes]) -> Iterator[bytes]:
    start = b""
    for chunk in content:
        start += chunk
        if len(start) >= len(BOM):
            break
    if start.startswith((*ZIP_STARTS, GZIP_START)):
        raise _FlawError("holds an archive in the archive", NOT_OURS)
    yield start.removeprefix(BOM)
    yield from content


def _checked(block: bytes) -> Iterator[bytes]:
    """Give a block without its blank lines; nothing where nothing is left."""
    if not _is_text(block):
        raise _FlawError("holds text that is not UTF-8: it is no export of Braze's", NOT_OURS)
    kept = []
    for raw in block.split(b"\n"):
        line = raw.strip(JSON_SPACE)
        if not line:
            continue
        if len(line) > LONGEST_LINE:
            raise _FlawError("holds a line that is too long", NOT_OURS)
        if not (line.startswith(b"{") and line.endswith(b"}")):
            raise _FlawError("holds a line that is no JSON object: it is no export of Braze's", NOT_OURS)
        kept.append(line)
    if kept:
        kept.append(b"")
        yield b"\n".join(kept)


def _is_text(block: bytes) -> bool:
    # The error of Python holds the block: it must not live on as the context of ours.
    try:
        return block.isascii() or bool(block.decode())
    except UnicodeDecodeError:
        return False


def _inflated(packed: Iterator[bytes], wbits: int, most: int) -> Iterator[bytes]:
    """Unpack streams of deflate that follow each other, at most so many, a block at a time."""
    stream = zlib.decompressobj(wbits)
    streams = 1
    for chunk in packed:
        left = chunk
        while left:
            if stream.eof:
                streams += 1
                if streams > most:
                    raise _FlawError(DAMAGED if most == 1 else f"holds more than {most:,} files", NOT_OURS)
                stream = zlib.decompressobj(wbits)
            yield _inflate(stream, left)
            left = stream.unused_data if stream.eof else stream.unconsumed_tail
    # All was read, but the last of it may still wait to be unpacked.
    while not stream.eof:
        last = _inflate(stream, b"")
        if not last and not stream.eof:
            raise _FlawError(DAMAGED)
        yield last


def _inflate(stream: zlib._Decompress, packed: bytes) -> bytes:
    try:
        return stream.decompress(packed, BLOCK)
    except zlib.error:
        pass
    raise _FlawError(DAMAGED)


def _packed(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (chunk := file.read(min(size, PACKED))):
        size -= len(chunk)
        yield chunk


def _zip_entries(
    archive: Path, file: BinaryIO, limits: ArchiveLimits, meter: _Meter
) -> Iterator[Iterator[bytes]]:
    """Give the content of each entry, in the order of the directory.

    Folders come along: there is nothing in them, or else it would be missed.
    """
    entries, end = _directory(archive, limits.entries)
    starts = sorted(entry.header_offset for entry in entries)
    # Whatever comes before the first entry is another archive, or was hidden there.
    if [*starts, end][0] != 0:
        raise _FlawError(DAMAGED)
    if len(set(starts)) < len(starts):
        raise _FlawError("holds files that overlap", NOT_OURS)
    bounds = dict(pairwise([*starts, end]))
    for entry in entries:
        if entry.flag_bits & ENCRYPTED:
            raise _FlawError("holds a file that is encrypted: it is no export of Braze's", NOT_OURS)
        if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise _FlawError("is packed in a way that is not read: only Deflate is", NOT_OURS)
        _find(file, entry, bounds[entry.header_offset])
        yield _proven(meter.counted(_unpacked(file, entry), entry.compress_size), entry)


def _directory(archive: Path, most: int) -> tuple[list[zipfile.ZipInfo], int]:
    """Return the entries of a ZIP and where the directory begins.

    A ZIP is read from its end. Where something follows that, zipfile would find an earlier one, and leave out
    the rest; and it does not look at how many entries there should be.
    """
    with _Bounded(archive, most) as file:
        try:
            packed = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OverflowError):
            packed = None  # not raised from here: errors of zipfile quote names
        if packed is None:
            raise _FlawError(DAMAGED)
        with packed:
            entries = packed.infolist()
            file.seek(max(archive.stat().st_size - END_RECORD.size - len(packed.comment), 0))
            signature, count = END_RECORD.unpack(file.read(END_RECORD.size))
            if signature != ZIP_STARTS[1] or count not in {len(entries) & 0xFFFF, IN_ZIP64}:
                raise _FlawError(DAMAGED)
            if len(entries) > most:
                raise _FlawError(f"holds more than {most:,} files", NOT_OURS)
            return entries, packed.start_dir


class _Bounded(io.FileIO):
    """A ZIP of which no more is read at once than the directory of so many entries takes.

    zipfile reads a directory in one go, however large, and makes objects of it.
    """

    def __init__(self, archive: Path, most: int) -> None:
        super().__init__(archive)
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        # The end of a ZIP is looked for in 64 KiB, the longest comment.
        if size is not None and size > 2 * PACKED + self._most * DIRECTORY_ENTRY:
            raise _FlawError(f"holds more than {self._most:,} files", NOT_OURS)
        return super().read(size) or b""


def _find(file: BinaryIO, entry: zipfile.ZipInfo, bound: int) -> None:
    """Go to where an entry's data begin; they must end where the next entry begins.

    What is in between two entries would be missed: an entry that a damaged directory does not name.
    """
    file.seek(entry.header_offset)
    header = file.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or not header.startswith(ZIP_STARTS[0]):
        raise _FlawError(DAMAGED)
    _, name, extra = LOCAL_HEADER.unpack(header)
    start = entry.header_offset + LOCAL_HEADER.size + name + extra
    end = start + entry.compress_size
    if end > bound:
        raise _FlawError("holds files that overlap", NOT_OURS)
    if end + DESCRIPTOR < bound:
        raise _FlawError(DAMAGED)
    file.seek(start)


def _unpacked(file: BinaryIO, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    packed = _packed(file, entry.compress_size)
    return packed if entry.compress_type == zipfile.ZIP_STORED else _inflated(packed, RAW_DEFLATE, 1)


def _proven(content: Iterator[bytes], entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Give on the content of an entry; at its end, size and checksum must be what the directory says."""
    size = crc = 0
    for chunk in content:
        size += len(chunk)
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if (size, crc) != (entry.file_size, entry.CRC):
        raise _FlawError(DAMAGED)
