"""Archives from outside: what they hold comes through, and bombs do not go off."""

import binascii
import gzip
import io
import random
import struct
import tracemalloc
import zipfile
import zlib
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients.errors import PermanentError
from airflow_provider_heapbraze.segments import archives
from airflow_provider_heapbraze.segments.archives import ArchiveLimits, UnusableExportError, json_lines

MIB = 1 << 20
SECRET = "mallory-4711"
LINE = b'{"external_id":"' + SECRET.encode() + b'"}'
ENTRY = f"{SECRET}-entry.txt"


def zipped(*contents: bytes, compression=zipfile.ZIP_DEFLATED, names=None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=5) as archive:
        for i, content in enumerate(contents):
            # Without a time of now: archives are in the names of tests, which every worker finds for itself.
            entry = zipfile.ZipInfo(names[i] if names else f"{i}-{ENTRY}")
            archive.writestr(entry, content, compression, 5)
    return buffer.getvalue()


def gzipped(*contents: bytes) -> bytes:
    return b"".join(gzip.compress(content, 5, mtime=0) for content in contents)


def person(i: int, size: int = 0) -> bytes:
    return b'{"external_id":"%d","pad":"%s"}' % (i, random.Random(i).randbytes(size // 2).hex().encode())


class Reading:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "packed"

    def blocks(self, packed: bytes, **limits) -> list[bytes]:
        self.file.write_bytes(packed)
        return list(json_lines(self.file, "part-1.zip", ArchiveLimits(**limits)))

    def lines(self, packed: bytes, **limits) -> list[bytes]:
        joined = b"".join(self.blocks(packed, **limits))
        assert not joined or joined.endswith(b"\n")
        return joined.splitlines()

    def refusal(self, packed: bytes, **limits) -> str:
        with pytest.raises(UnusableExportError) as caught:
            self.blocks(packed, **limits)
        message = str(caught.value)
        assert message.startswith("part-1.zip ")
        assert "Nothing was sent." in message
        assert "to make a new export." in message
        assert SECRET not in message
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        return message


@pytest.fixture
def reading(tmp_path):
    return Reading(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return Reading(tmp_path_factory.mktemp("archives"))


def test_the_error_is_final():
    assert issubclass(UnusableExportError, PermanentError)


# What comes through

lines_of_json = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40).map(
        lambda text: f"{{{text}}}".encode()
    ),
    max_size=8,
)


@given(st.lists(lines_of_json, max_size=5), st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
@settings(max_examples=50, deadline=None)
def test_lines_of_a_zip_come_out_as_they_went_in(shared, files, compression):
    packed = zipped(*(b"\n".join(lines) for lines in files), compression=compression)
    assert b"".join(shared.blocks(packed)) == b"".join(line + b"\n" for lines in files for line in lines)


@given(lines_of_json, st.lists(st.integers(0, 200), max_size=4))
@settings(max_examples=50, deadline=None)
def test_lines_of_gzip_come_out_as_they_went_in_wherever_its_members_end(shared, lines, cuts):
    content = b"".join(line + b"\n" for line in lines)
    places = [0, *sorted(cuts), len(content)]
    packed = gzipped(*(content[a:b] for a, b in pairwise(places)))
    assert b"".join(shared.blocks(packed)) == content


@pytest.mark.parametrize("pack", [zipped, gzipped])
def test_blocks_are_of_whole_lines_and_of_moderate_size(reading, pack):
    people = [person(i, size=40_000 + i) for i in range(70)]
    blocks = reading.blocks(pack(b"\n".join(people)))
    assert b"".join(blocks) == b"\n".join(people) + b"\n"
    assert len(blocks) > 1
    assert all(block.endswith(b"}\n") and block.startswith(b"{") for block in blocks)
    assert max(map(len, blocks)) < 2.1 * MIB


@pytest.mark.parametrize("pack", [zipped, gzipped])
def test_a_line_may_be_longer_than_a_block(reading, pack):
    people = [person(1), person(2, size=2 * MIB), person(3)]
    assert reading.lines(pack(b"\n".join(people))) == people


@pytest.mark.parametrize("pack", [zipped, gzipped])
@pytest.mark.parametrize(
    "content",
    [
        b'{"a":1}\n{"b":2}\n',
        b'{"a":1}\n{"b":2}',
        b'{"a":1}\r\n{"b":2}\r\n',
        b'\n\n{"a":1}\n \t \n\r\n{"b":2}\n\n',
        b'  {"a":1}\t\n{"b":2}  ',
        b'\xef\xbb\xbf{"a":1}\n{"b":2}\n',
    ],
)
def test_ways_to_end_and_to_begin_a_line(reading, pack, content):
    assert reading.lines(pack(content)) == [b'{"a":1}', b'{"b":2}']


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
@pytest.mark.parametrize("pack", [zipped, gzipped])
def test_nothing_is_nobody(reading, pack, content):
    assert reading.blocks(pack(content)) == []


def test_an_empty_zip_is_nobody(reading):
    assert reading.blocks(zipped()) == []


def test_every_entry_may_begin_with_a_mark_and_end_without_a_newline(reading):
    assert reading.lines(zipped(b"\xef\xbb\xbf{1}", b"\xef\xbb\xbf{2}", b"", b"{3}")) == [
        b"{1}",
        b"{2}",
        b"{3}",
    ]


def test_entries_come_in_the_order_of_the_directory(reading):
    assert reading.lines(zipped(b"{2}", b"{1}", b"{3}", names=["z", "a", "m"])) == [b"{2}", b"{1}", b"{3}"]


def test_folders_are_passed_over(reading):
    assert reading.lines(zipped(b"", b"{1}", names=["folder/", "folder/a.txt"])) == [b"{1}"]


def test_names_are_no_paths(reading, tmp_path):
    assert reading.lines(zipped(b"{1}", b"{2}", names=["../../evil", "/evil"])) == [b"{1}", b"{2}"]
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


def test_a_zip_may_be_written_as_a_stream(reading):
    class Pipe(io.RawIOBase):  # without seek: sizes come after the data, in descriptors
        def __init__(self) -> None:
            self.written = b""

        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            self.written += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"{1}")
        with archive.open("b", "w", force_zip64=True) as entry:
            entry.write(b"{2}")
    assert reading.lines(pipe.written) == [b"{1}", b"{2}"]


def test_a_zip_may_have_a_comment(reading):
    buffer = io.BytesIO(zipped(b"{1}"))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"made by hand " * 4
    assert reading.lines(buffer.getvalue()) == [b"{1}"]


# Sizes


@pytest.mark.parametrize("pack", [zipped, gzipped])
def test_what_is_unpacked_is_not_held(reading, pack):
    repeated = 60
    block = (blank(4000) + b"\n") * 100
    packed = pack(block * repeated)
    reading.file.write_bytes(packed)
    del packed
    tracemalloc.start()
    try:
        size = sum(map(len, json_lines(reading.file, "x", ArchiveLimits(ratio=2000))))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == len(block) * repeated > 22 * MIB
    assert peak < 8 * MIB


def blank(size: int) -> bytes:
    return b'{"a":"' + b" " * (size - 8) + b'"}'


@pytest.mark.parametrize("pack", [zipped, gzipped])
def test_a_ratio_bomb_is_stopped_early(reading, pack):
    packed = pack((blank(10_000) + b"\n") * 2_500)
    assert "200 times" in reading.refusal(packed)
    seen = []
    with suppress(UnusableExportError):
        seen.extend(map(len, json_lines(reading.file, "x")))
    assert sum(seen) < 210 * len(packed) + 3 * MIB < 20 * MIB


@pytest.mark.parametrize("pack", [zipped, gzipped])
def test_the_ratio_of_a_small_file_does_not_matter(reading, pack):
    content = (blank(1000) + b"\n") * 1000
    assert len(content) / len(pack(content)) > 200
    assert len(reading.lines(pack(content))) == 1000


def test_many_small_bombs_are_one(reading):
    entry = (blank(1000) + b"\n") * 1000
    assert "200 times" in reading.refusal(zipped(*[entry] * 10))


def test_a_ratio_that_is_allowed_is_allowed(reading):
    content = (blank(1000) + b"\n") * 10_000
    assert len(reading.lines(zipped(content), ratio=1100)) == 10_000


@pytest.mark.parametrize("pack", [zipped, gzipped])
def test_a_file_may_not_unpack_to_more_than_its_limit(reading, pack):
    packed = pack(b"{12345678}\n" * 10)
    assert len(reading.lines(packed, entry_bytes=110)) == 10
    assert "109 bytes in one file" in reading.refusal(packed, entry_bytes=109)


@pytest.mark.parametrize("pack", [zipped, gzipped])
def test_an_archive_may_not_unpack_to_more_than_its_limit(reading, pack):
    packed = pack(b"{12345678}\n" * 5, b"{12345678}\n" * 5)
    assert len(reading.lines(packed, total_bytes=110)) == 10
    assert "more than 109 bytes." in reading.refusal(packed, total_bytes=109)


@pytest.mark.parametrize("pack", [zipped, gzipped])
def test_an_archive_may_not_hold_too_many_files(reading, pack):
    packed = pack(*[b"{}\n"] * 10)
    assert len(reading.lines(packed, entries=10)) == 10
    assert "more than 9 files" in reading.refusal(packed, entries=9)


def test_a_huge_directory_is_not_even_read(reading):
    packed = zipped(*[b""] * 2000, names=[f"{i:0100d}" for i in range(2000)])
    assert "more than 1 files" in reading.refusal(packed, entries=1)


@pytest.mark.parametrize("pack", [zipped, gzipped])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n{}\n"])
def test_a_line_that_is_too_long_is_refused(reading, pack, end, monkeypatch):
    monkeypatch.setattr(archives, "LONGEST_LINE", 2 * MIB)
    assert len(reading.lines(pack(blank(2 * MIB) + b"\n"), ratio=2000)) == 1
    assert "too long" in reading.refusal(pack(blank(2 * MIB + 1) + end), ratio=2000)


@pytest.mark.parametrize("pack", [zipped, gzipped])
def test_a_line_without_end_is_not_held(reading, pack):
    reading.file.write_bytes(pack(b"{" * (36 * MIB)))
    tracemalloc.start()
    try:
        with pytest.raises(UnusableExportError, match="too long"):
            list(json_lines(reading.file, "x", ArchiveLimits(ratio=2000)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * MIB


# Foreign files


@pytest.mark.parametrize(
    "packed",
    [
        LINE + b"\n",
        b"P",
        b"\x1f",
        b"%PDF-1.7",
        b"\x28\xb5\x2f\xfd" + LINE,
        b"\x00" * 100,
        b"PK\x07\x08" + LINE,
        b"#!/bin/sh\n" + zipped(LINE),
    ],
)
def test_other_files_than_zip_and_gzip_are_foreign(reading, packed):
    assert "neither ZIP nor gzip" in reading.refusal(packed)


def test_an_empty_file_is_refused(reading):
    assert "is empty" in reading.refusal(b"")


@pytest.mark.parametrize("pack", [zipped, gzipped])
@pytest.mark.parametrize(
    "content",
    [
        SECRET.encode(),
        LINE[:-1],
        LINE[1:],
        b"[" + LINE + b"]",
        LINE + b"\n" + LINE[:-1] + b"\n" + LINE,
        LINE + b"\n\xef\xbb\xbf" + LINE,
        LINE + b"\n\x00" + LINE,
        LINE + b",\n" + LINE,
        LINE * 1_000 + b"x\n" + LINE,
    ],
)
def test_lines_that_are_no_objects_are_foreign(reading, pack, content):
    assert "no export of Braze's" in reading.refusal(pack(content))


@pytest.mark.parametrize("pack", [zipped, gzipped])
@pytest.mark.parametrize("encoded", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"])
def test_text_that_is_not_utf8_is_refused(reading, pack, encoded):
    assert "not UTF-8" in reading.refusal(pack(LINE + b"\n" + LINE[:-2] + encoded + b'"}\n'))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_refused(reading, encoding):
    assert "no export of Braze's" in reading.refusal(zipped(LINE.decode().encode(encoding)))


@pytest.mark.parametrize("pack", [zipped, gzipped])
@pytest.mark.parametrize("inner", [zipped(LINE), zipped(), gzipped(LINE)])
def test_archives_in_archives_are_refused(reading, pack, inner):
    assert "archive in the archive" in reading.refusal(pack(inner))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(reading, compression):
    assert "Deflate" in reading.refusal(zipped(LINE, compression=compression))


def patched(packed: bytes, place: int, value: bytes, *, signature: bytes = b"PK\x01\x02") -> bytes:
    """Change a field in the first header of a kind; by default of the directory."""
    start = packed.index(signature) + place
    return packed[:start] + value + packed[start + len(value) :]


@pytest.mark.parametrize("flag", [0x1, 0x41, 0x2000])
def test_encrypted_files_are_refused(reading, flag):
    assert "encrypted" in reading.refusal(patched(zipped(LINE), 8, struct.pack("<H", flag)))


# Forged files


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("size", [0, 1, len(LINE) * 50, len(LINE) * 100 - 1, len(LINE) * 100 + 1, 2**31])
def test_a_forged_size_is_found(reading, compression, size):
    packed = zipped(LINE * 100, compression=compression)
    reading.refusal(patched(packed, 24, struct.pack("<I", size)))


def test_a_forged_size_does_not_hide_a_bomb(reading):
    packed = zipped((blank(1000) + b"\n") * 10_000)
    assert "200 times" in reading.refusal(patched(packed, 24, struct.pack("<I", 100)))
    content = (LINE + b"\n") * 10
    packed = patched(zipped(content), 24, struct.pack("<I", 1))
    assert "in one file" in reading.refusal(packed, entry_bytes=len(content) - 1)


def test_a_forged_size_does_not_cut_people_off(reading):
    # zipfile would give the first line only, and be content with its checksum.
    content = LINE + b"\n" + LINE + b"\n"
    first = content[: len(LINE) + 1]
    packed = patched(zipped(content), 24, struct.pack("<I", len(first)))
    packed = patched(packed, 16, struct.pack("<I", binascii.crc32(first)))
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.read(archive.infolist()[0]) == first
    assert "damaged" in reading.refusal(packed)


@pytest.mark.parametrize("change", [-1, 1, 10, 2**20])
def test_a_forged_packed_size_is_found(reading, change):
    packed = zipped(LINE * 100)
    size = struct.unpack_from("<I", packed, packed.index(b"PK\x01\x02") + 20)[0] + change
    reading.refusal(patched(packed, 20, struct.pack("<I", size)))


def test_data_after_the_end_of_an_entry_are_found(reading):
    content = LINE + b"\n"
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw = deflate.compress(content) + deflate.flush() + b"hidden"
    assert "damaged" in reading.refusal(craft([(0, raw, content)]))


@pytest.mark.parametrize("pack", [zipped, gzipped])
def test_a_wrong_checksum_is_found(reading, pack):
    packed = pack(LINE)
    wrong = patched(packed, 16, b"\0\0\0\0") if pack is zipped else packed[:-8] + b"\0\0\0\0" + packed[-4:]
    assert "damaged" in reading.refusal(wrong)


def test_a_wrong_checksum_of_a_stored_file_is_found(reading):
    packed = zipped(LINE, compression=zipfile.ZIP_STORED)
    assert "damaged" in reading.refusal(packed.replace(b'4711"', b'4712"'))


def craft(entries: list[tuple[int, bytes, bytes]]) -> bytes:
    """Make a ZIP by hand: per entry the number of its data, which may be an earlier one's, packed and not."""
    body, directory = b"", b""
    starts: dict[int, int] = {}
    for number, raw, content in entries:
        sizes = struct.pack("<III", binascii.crc32(content), len(raw), len(content))
        if number not in starts:
            starts[number] = len(body)
            body += b"PK\x03\x04" + struct.pack("<HHHHH", 20, 0, 8, 0, 0) + sizes
            body += struct.pack("<HH", 1, 0) + b"e" + raw
        directory += b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, 0, 8, 0, 0) + sizes
        directory += struct.pack("<HHHHHII", 1, 0, 0, 0, 0, 0, starts[number]) + b"e"
    end = struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    return body + directory + b"PK\x05\x06" + end


def deflated(content: bytes) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(content) + deflate.flush()


def test_a_zip_made_by_hand_is_read(reading):
    content = LINE + b"\n"
    assert reading.lines(craft([(0, deflated(content), content), (1, deflated(content), content)])) == [
        LINE,
        LINE,
    ]


def test_entries_that_share_their_bytes_are_refused(reading):
    content = b"".join(person(i) + b"\n" for i in range(1000))
    packed = craft([(0, deflated(content), content)] * 50)
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert len(archive.infolist()) == 50
    assert "overlap" in reading.refusal(packed)


def quoted_overlap(kernel: bytes, content: bytes, entries: int) -> bytes:
    """Make a bomb as David Fifield did: each entry quotes the header of the next, and ends in one kernel."""

    def header(size: int, packed: int, crc: int, name: int) -> bytes:
        fixed = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0, crc, packed, size, 4, 0)
        return b"PK\x03\x04" + fixed + b"%04d" % name

    # From the last entry to the first: each holds, as a stored block, the header of the one after it.
    raw, text, body = kernel, content, b""
    records = []
    for i in range(entries):
        head = header(len(text), len(raw), binascii.crc32(text), i)
        body = head + raw
        records.append((binascii.crc32(text), len(raw), len(text), i, len(body)))
        raw = struct.pack("<BHH", 0, len(head), len(head) ^ 0xFFFF) + body
        text = head + text
    directory = b""
    for crc, packed, size, name, from_end in reversed(records):
        directory += b"PK\x01\x02" + struct.pack("<HHHHHHIII", 20, 20, 0, 8, 0, 0, crc, packed, size)
        directory += struct.pack("<HHHHHII", 4, 0, 0, 0, 0, 0, len(body) - from_end) + b"%04d" % name
    end = struct.pack("<HHHHIIH", 0, 0, entries, entries, len(directory), len(body), 0)
    return body + directory + b"PK\x05\x06" + end


def test_entries_that_quote_each_other_are_refused(reading):
    content = (blank(1000) + b"\n") * 900
    packed = quoted_overlap(deflated(content), content, 20)
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert sum(entry.file_size for entry in archive.infolist()) > 200 * len(packed)
        assert archive.infolist()[0].header_offset == 0
    assert "overlap" in reading.refusal(packed)


def test_shared_bytes_are_a_bomb_even_if_the_overlap_were_not_seen(reading, monkeypatch):
    content = (blank(1000) + b"\n") * 900
    packed = quoted_overlap(deflated(content), content, 20)
    find = archives._find
    monkeypatch.setattr(
        archives, "_find", lambda file, entry, bound: find(file, entry, max(bound, end(entry)))
    )
    monkeypatch.setattr(archives, "_lines", lambda content: content)
    assert "200 times" in reading.refusal(packed)


def end(entry: zipfile.ZipInfo) -> int:
    return entry.header_offset + 30 + len(entry.filename) + entry.compress_size


def test_an_entry_that_the_directory_does_not_name_is_missed(reading):
    content = LINE + b"\n"
    packed = craft([(0, deflated(content), content), (1, deflated(content), content)])
    directory = packed.index(b"PK\x01\x02")
    record = (packed.index(b"PK\x05\x06") - directory) // 2
    for unnamed in (directory, directory + record):
        kept = packed[:unnamed] + packed[unnamed + record :]
        kept = patched(kept, 8, struct.pack("<HHI", 1, 1, record), signature=b"PK\x05\x06")
        with zipfile.ZipFile(io.BytesIO(kept)) as archive:
            assert len(archive.infolist()) == 1
        assert "damaged" in reading.refusal(kept)


def test_a_directory_of_another_length_than_it_says_is_found(reading):
    for count in (0, 1, 3):
        forged = patched(zipped(LINE, LINE), 10, struct.pack("<H", count), signature=b"PK\x05\x06")
        assert "damaged" in reading.refusal(forged)


def test_a_zip64_is_read(reading, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    packed = zipped(LINE, LINE)
    assert b"PK\x06\x06" in packed
    assert reading.lines(packed) == [LINE, LINE]
    packed = patched(packed, 8, b"\xff" * 12, signature=b"PK\x05\x06")
    assert reading.lines(packed) == [LINE, LINE]


def test_two_zips_in_a_row_are_not_taken_for_one(reading):
    assert "damaged" in reading.refusal(zipped(LINE) + zipped(LINE))


def test_a_second_zip_that_is_cut_off_is_not_overlooked(reading):
    reading.refusal(zipped(LINE) + zipped(LINE)[:-10])
    reading.refusal(zipped() + zipped(LINE))


@pytest.mark.parametrize("pack", [zipped, gzipped])
@pytest.mark.parametrize("garbage", [b"\0", b"\n", LINE, b"\x1f\x8b", b"PK\x05\x06", b"\0" * 70_000])
def test_garbage_at_the_end_is_found(reading, pack, garbage):
    reading.refusal(pack(LINE, LINE) + garbage)


@pytest.mark.parametrize(
    "packed",
    [
        zipped(LINE, LINE + b"\n" + LINE),
        zipped(LINE, LINE, compression=zipfile.ZIP_STORED),
        zipped(),
        gzipped(LINE),
        gzipped(LINE + b"\n" + LINE * 20),
    ],
)
def test_an_archive_that_is_cut_off_anywhere_is_refused(reading, packed):
    for length in range(len(packed)):
        reading.refusal(packed[:length])


@pytest.mark.parametrize("pack", [zipped, gzipped])
def test_a_large_archive_that_is_cut_off_is_refused(reading, pack):
    packed = pack(b"".join(person(i, 5000) + b"\n" for i in range(300)))
    for length in (len(packed) - 1, len(packed) // 2, 70_000):
        assert "damaged" in reading.refusal(packed[:length])


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_no_changed_byte_of_a_zip_gives_other_people_or_another_error(reading, compression):
    packed = zipped(LINE, LINE + b"\n" + LINE, compression=compression)
    for place in range(len(packed)):
        changed = bytearray(packed)
        changed[place] ^= (0x01, 0x80, 0xFF)[place % 3]
        assert_same_or_refused(reading, bytes(changed), 3)


def test_no_changed_byte_of_gzip_gives_other_people_or_another_error(reading):
    packed = gzipped(LINE + b"\n", LINE + b"\n" + LINE)
    for place in range(len(packed)):
        changed = bytearray(packed)
        changed[place] ^= (0x01, 0x80, 0xFF)[place % 3]
        assert_same_or_refused(reading, bytes(changed), 3)


def test_noise_is_refused(reading):
    noise = random.Random(3)
    for start in (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08\x00"):
        for _ in range(30):
            reading.refusal(start + noise.randbytes(noise.randrange(200)))


def assert_same_or_refused(reading, packed: bytes, people: int) -> None:
    reading.file.write_bytes(packed)
    lines = None
    with suppress(UnusableExportError):
        lines = b"".join(json_lines(reading.file, "part-1.zip"))
    if lines is None:
        reading.refusal(packed)
    else:
        assert lines == (LINE + b"\n") * people


def test_a_fault_of_the_disk_is_not_the_archive_s(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(json_lines(tmp_path / "missing", "x"))


def test_the_file_is_closed_when_reading_ends_early(reading):
    reading.file.write_bytes(zipped(b"".join(person(i, 50_000) + b"\n" for i in range(60))))
    blocks = json_lines(reading.file, "x")
    assert next(blocks)
    blocks.close()  # an open file would be a ResourceWarning, which fails the suite
