"""Files that cannot be read, or not to their end: their good events come, and a reason says why no more."""

from __future__ import annotations

import errno
import gzip
import io
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import fastavro
import pyarrow as pa
import pytest
from pyroaring import BitMap

from airflow_provider_heapbraze.events import json_forms
from airflow_provider_heapbraze.events.avro import read_avro
from airflow_provider_heapbraze.events.errors import FileSetAsideError
from airflow_provider_heapbraze.events.reading import read_events
from tests.currents import samples

CUSTOM = "users.behaviors.CustomEvent"
SYNC = b"synchronisation!"
CUT = "its compressed content is cut off or damaged"
EVENTS = [{"id": str(n), "time": 5, "event_type": "x.Y", "pad": "x" * 40} for n in range(5)]
LINES = [json.dumps(event).encode() + b"\n" for event in EVENTS]


def zstd(content):
    return pa.compress(content, "zstd", asbytes=True)


@pytest.fixture
def read(tmp_path):
    """Read a file that is not good; return the ids that came all the same, and the reason."""

    def read_it(content, name="events.json"):
        file = tmp_path / name
        file.write_bytes(content)
        rows = []
        with pytest.raises(FileSetAsideError) as caught:
            rows.extend(read_events(file, "", BitMap()))
        assert [row for row, _ in rows] == [*range(len(rows))]
        assert caught.value.rows == len(rows), "the error tells how many came"
        return [event.fields["id"] for _, event in rows], str(caught.value)

    return read_it


# Avro.


@pytest.fixture(params=samples.codecs())
def avro(request, tmp_path):
    """Give a good file of 300 events in several blocks, with each codec."""
    samples.write_avro(
        tmp_path / "good", samples.schema(CUSTOM), samples.numbered(300), request.param, sync_marker=SYNC
    )
    return (tmp_path / "good").read_bytes()


IDS = [record["id"] for record in samples.numbered(300)]


def blocks(content):
    """Return how many events are in each block, and where each begins and ends."""
    found = fastavro.block_reader(io.BytesIO(content))
    return [(block.num_records, block.offset, block.offset + block.size) for block in found]


def cut_off(ids, reason):
    """Tell whether these are the first events of the file, and the reason says how many."""
    return ids == IDS[: len(ids)] and reason.startswith(
        f"it is cut off or damaged after {len(ids):,} events ("
    )


def test_avro_cut_in_a_block(avro, read):
    (count, _, _), (_, begin, end), *_ = blocks(avro)
    for place in (begin + 1, begin + 2, begin + 3, (begin + end) // 2, end - 20, end - 17):
        ids, reason = read(avro[:place])
        assert cut_off(ids, reason)
        assert len(ids) >= count


def test_avro_cut_in_a_sync_marker(avro, read):
    counts = [count for count, *_ in blocks(avro)]
    for missing in (1, 3, 15):
        ids, reason = read(avro[:-missing])
        assert cut_off(ids, reason)
        assert len(ids) >= sum(counts[:-1])
        ids, reason = read(avro[: blocks(avro)[1][2] - missing])
        assert cut_off(ids, reason)
        assert len(ids) >= counts[0]


def test_the_reason_of_a_cut_file_in_full(tmp_path, read):
    samples.write_avro(tmp_path / "good", samples.schema(CUSTOM), samples.numbered(2000), sync_marker=SYNC)
    content = (tmp_path / "good").read_bytes()
    whole = sum(count for count, *_ in blocks(content)[:-1])
    assert whole > 1000
    _, reason = read(content[:-200])
    assert reason == f"it is cut off or damaged after {whole:,} events (EOFError)"


def test_avro_cut_in_its_header(avro, read):
    header = avro.index(SYNC) + len(SYNC)
    for place in (4, 5, 20, header // 2, header - len(SYNC), header - 1):
        assert read(avro[:place]) == (
            [],
            "it is cut off or damaged: its header cannot be read (ValueError)",
        )


def test_avro_with_another_version_or_cut_in_the_magic(avro, read):
    for content in (b"Obj\x02" + avro[4:], avro[:3], b"obj\x01" + avro[4:]):
        assert read(content) == ([], "it is neither Avro nor JSON")


def test_a_flipped_byte_in_a_sync_marker(avro, read):
    marks = [end - 16 for _, _, end in blocks(avro)]
    for place in marks:
        damaged = bytearray(avro)
        damaged[place + 5] ^= 0x40
        ids, reason = read(bytes(damaged))
        assert cut_off(ids, reason)


@pytest.mark.parametrize("more", [[], [{"name": "day", "type": {"type": "int", "logicalType": "date"}}]])
@pytest.mark.parametrize("count", [1, 31, 64])
@pytest.mark.parametrize("codec", samples.codecs())
def test_a_block_that_holds_more_or_fewer_events_than_it_says(codec, count, more, tmp_path, read):
    """Their number stands before the block: one byte, or two from 64."""
    schema = samples.schema(CUSTOM)
    schema["fields"] += more
    records = [{**record, "day": 1} for record in samples.numbered(300)]
    samples.write_avro(tmp_path / "good", schema, records, codec, sync_marker=SYNC)
    content = (tmp_path / "good").read_bytes()
    _, begin, end = blocks(content)[1]
    held = content[begin + (2 if content[begin] & 0x80 else 1) : end]
    ids, reason = read(content[:begin] + avro_long(count) + held + content[end:])
    assert cut_off(ids, reason)


@pytest.mark.parametrize("length", [2**33, 2**45, 2**62])
def test_a_block_that_claims_to_be_huge(avro, length, read):
    """No file may take the whole export with it."""
    (count, _, _), (_, begin, _), *_ = blocks(avro)
    ids, reason = read(avro[:begin] + b"\x02" + avro_long(length) + avro[begin + 4 :])
    assert cut_off(ids, reason)
    assert len(ids) == count


def avro_long(number):
    number <<= 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def test_any_damage_gives_events_or_a_reason(avro, tmp_path):
    """Nothing but a reason may stop the reader, whichever bytes are wrong."""
    chance = random.Random(5)
    first = avro.index(SYNC) + len(SYNC)
    for _ in range(150):
        damaged = bytearray(avro)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(first, len(avro))] = chance.randrange(256)
        (tmp_path / "damaged").write_bytes(damaged[: chance.choice([None, -1, -1000])])
        rows = []
        try:
            rows.extend(read_events(tmp_path / "damaged", "", BitMap()))
        except FileSetAsideError as error:
            assert error.rows == len(rows)  # noqa: PT017 - not every damage is found


def test_a_damaged_header_gives_a_reason(avro, tmp_path):
    chance = random.Random(6)
    header = avro.index(SYNC) + len(SYNC)
    for _ in range(150):
        damaged = bytearray(avro)
        damaged[chance.randrange(4, header)] = chance.randrange(256)
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            list(read_events(tmp_path / "damaged", "", BitMap()))
        except FileSetAsideError:
            continue


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_avro_compressed_as_a_whole_and_cut(compress, avro, tmp_path, read):
    """What came before the cut is told as for any other file."""
    names = (record | {"name": random.Random(record["id"]).randbytes(4000).hex()} for record in many())
    samples.write_avro(tmp_path / "good", samples.schema(CUSTOM), names, sync_marker=SYNC)
    packed = compress((tmp_path / "good").read_bytes())
    ids, reason = read(packed[: len(packed) * 9 // 10])
    assert reason == CUT
    assert ids == [record["id"] for record in many()][: len(ids)]
    assert len(ids) > 100


def many():
    return samples.numbered(500)


@pytest.mark.parametrize("codec", ["zstandard", "nosuch"])
def test_a_codec_that_cannot_be_read_here_is_named(codec, tmp_path, read):
    """The file is whole: to say that it is damaged would send people the wrong way."""
    if codec in samples.codecs():
        pytest.skip("it can be read here")
    samples.write_avro(tmp_path / "good", samples.schema(CUSTOM), samples.numbered(5), "null")
    content = (tmp_path / "good").read_bytes()
    assert content.count(b"avro.codec\x08null") == 1
    said = b"avro.codec" + bytes([len(codec) << 1]) + codec.encode()
    ids, reason = read(content.replace(b"avro.codec\x08null", said))
    assert not ids
    assert codec in reason
    assert "damaged" not in reason


@pytest.mark.parametrize(
    ("schema", "records"),
    [
        ("string", ["a"]),
        ({"type": "record", "name": "Person", "fields": [{"name": "age", "type": "int"}]}, [{"age": 1}]),
        ({"type": "record", "name": "Nothing", "fields": []}, [{}]),
        ({"type": "array", "items": "string"}, [["id"]]),
        (["null", "string"], ["id"]),
        ({"type": "enum", "name": "id", "symbols": ["id"]}, ["id"]),
    ],
)
def test_avro_of_something_else(schema, records, tmp_path, read):
    samples.write_avro(tmp_path / "other", schema, records)
    assert read((tmp_path / "other").read_bytes()) == (
        [],
        "it is Avro, but its records are no events of Currents: they have no id",
    )


class FailingDisk(io.BytesIO):
    """A file on a disk that fails after so many bytes."""

    def __init__(self, content, good):
        super().__init__(content)
        self._good = good

    def read(self, size=-1):
        if self.tell() >= self._good:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


def test_a_failing_disk_is_not_the_fault_of_avro(avro):
    """To set the file aside would lose its events for good; the next run can read them."""
    file = FailingDisk(avro, blocks(avro)[1][1])
    with pytest.raises(OSError, match="Input/output error"):
        list(read_avro(file, "", BitMap()))


def test_a_failing_disk_is_not_the_fault_of_json(monkeypatch):
    monkeypatch.setattr(json_forms, "CHUNK", 20)
    with pytest.raises(OSError, match="Input/output error"):
        list(json_forms.read_json(FailingDisk(b"".join(LINES), 60), "", BitMap()))


# What is neither.


def test_an_empty_file(read):
    reason = "it is empty; Braze writes no empty file, so it may be cut off, or still being written"
    assert read(b"") == ([], reason)
    assert read(gzip.compress(b"")) == ([], reason)
    assert read(zstd(b"")) == ([], reason)


@pytest.mark.parametrize(
    "content",
    [
        b"id,time,event_type\n1,5,x.Y\n",
        b"Order Placed",
        b'"a text"',
        b"12",
        b"   \n\n",
        b"\x00" * 100,
        b"PAR1" + bytes(100),
        b"PK\x03\x04" + bytes(100),
        b"<html></html>",
    ],
)
def test_other_files(content, read):
    for packed in (content, gzip.compress(content), zstd(content)):
        assert read(packed) == ([], "it is neither Avro nor JSON")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16(encoding, read):
    content = ("\ufeff" + b"".join(LINES).decode()).encode(encoding)
    assert read(content) == ([], "it is text in UTF-16, not in UTF-8")


# JSON, a line each.


def broken_lines(*broken):
    """Put these in place of the lines 2, 4, …"""
    lines = [*LINES]
    for place, line in zip((1, 3), broken, strict=False):
        lines[place] = line + b"\n"
    return b"".join(lines)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"id": "M\xfcller"}', "no UTF-8"),
        (b'{"id": "1", "\xff": 1}', "no UTF-8"),
        (b'\xff\xfe{"id": "1"}', "no UTF-8"),
        (b'{"id": "1", "time": }', "no JSON"),
        (b'{"id": "1', "no JSON"),
        (b"{'id': '1'}", "no JSON"),
        (b"Order Placed", "no JSON"),
        (b'{"id": "1"} {"id": "2"}', "no JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"a":' * 100_000, "no JSON"),
        (b"\x00" * 50, "no JSON"),
        (b'{"hello": 1}', "no event of Currents"),
        (b"{}", "no event of Currents"),
        (b"12", "no event of Currents"),
        (b"null", "no event of Currents"),
        (b'"id"', "no event of Currents"),
        (b"[1, 2]", "no event of Currents"),
        (b'{"events": [1]}', "no event of Currents"),
        (b'{"events": {"id": "1"}}', "no event of Currents"),
    ],
)
def test_a_line_in_the_middle(line, problem, read):
    reason = f"line 2 is {problem}; the other lines were read"
    for packed in (broken_lines(line), gzip.compress(broken_lines(line)), zstd(broken_lines(line))):
        assert read(packed) == (["0", "2", "3", "4"], reason)


def test_several_lines_in_the_middle(read):
    content = broken_lines(b"oops", b"\xff")
    assert read(content) == (["0", "2", "4"], "line 2 is no JSON, and 1 more; the other lines were read")


def test_blank_lines_count_as_lines(read):
    _, reason = read(b"\n\n" + LINES[0] + b"\r\n\n" + b"oops\n")
    assert reason == "line 6 is no JSON; the other lines were read"


def test_numbers_of_lines_are_written_for_people(read):
    content = LINES[0] * 1500 + b"oops\n" * 1200
    (_, reason) = read(content)
    assert reason == "line 1,501 is no JSON, and 1,199 more; the other lines were read"


@pytest.mark.parametrize("line", [b'{"id": "1', b'{"id": "\xff"}', b'": "the end of an event that was cut"}'])
def test_the_first_line(line, read):
    """Like every other line: the rest of the file has nothing to do with it."""
    if not line.startswith(b"{"):
        line = b"{" + line
    ids, reason = read(line + b"\n" + b"".join(LINES))
    assert ids == ["0", "1", "2", "3", "4"]
    assert reason.startswith("line 1 is no ")
    assert reason.endswith("; the other lines were read")


def test_the_last_line_is_cut(read):
    for missing in (3, 40, 79):
        content = b"".join(LINES)[:-missing]
        assert read(content) == (["0", "1", "2", "3"], "line 5 is no JSON; the other lines were read")


def test_only_the_end_of_the_line_is_missing(tmp_path):
    (tmp_path / "events").write_bytes(b"".join(LINES)[:-1])
    assert len(list(read_events(tmp_path / "events", "", BitMap()))) == 5


def test_no_event_at_all(read):
    assert read(b'{"hello": 1}') == ([], "line 1 is no event of Currents; the other lines were read")


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_compressed_and_cut(compress, read):
    """What is read at once is a MiB; all that was read before the cut comes."""
    events = [{**EVENTS[0], "id": str(n), "pad": random.Random(n).randbytes(100).hex()} for n in range(9000)]
    packed = compress("".join(f"{json.dumps(event)}\n" for event in events).encode())
    for keep in (len(packed) * 9 // 10, len(packed) - 1):
        ids, reason = read(packed[:keep])
        assert reason == CUT
        assert ids == [event["id"] for event in events[: len(ids)]]
        assert len(ids) > 3000
    assert read(packed[:200]) == ([], CUT)
    assert read(packed[:6]) == ([], CUT)


def test_gzip_with_a_flipped_byte(read):
    packed = bytearray(gzip.compress(b"".join(LINES)))
    packed[-6] ^= 1  # in the checksum
    assert read(bytes(packed)) == ([], CUT)


def test_gzip_with_something_behind(read):
    assert read(gzip.compress(b"".join(LINES)) + b"something else") == ([], CUT)


# JSON over many lines.


def near_the_end(content):
    return f"it is no JSON, or cut off, near line {len(content.rstrip().splitlines())}"


def pretty(events):
    return json.dumps(events, indent=2).encode()


@pytest.mark.parametrize("missing", [1, 3, 30])
def test_a_pretty_list_is_cut(missing, read):
    content = pretty(EVENTS)[:-2].rstrip()[:-missing]
    ids, reason = read(content)
    assert ids == ["0", "1", "2", "3"]
    assert reason == near_the_end(content)


def test_a_pretty_batch_is_cut(read):
    """A batch is one value: without its end there is none."""
    content = pretty({"events": EVENTS})[:-10]
    assert read(content) == ([], near_the_end(content))


def test_where_the_break_is_over_many_lines(read):
    """The lines behind it are many, and none of them is wrong."""
    content = b"\n".join([pretty(EVENTS[0]), pretty(EVENTS[1])[:-2] + b",", *map(pretty, EVENTS * 50)])
    ids, reason = read(content)
    assert ids == ["0"]
    line = reason.removeprefix("it is no JSON, or cut off, near line ")
    assert int(line.replace(",", "")) in range(7, 20)


def test_no_utf_8_over_many_lines(read):
    content = b"\n".join(map(pretty, EVENTS[:2])) + b'\n{\n"id": "2",\n"name": "M\xfcller"\n}'
    assert read(content) == (["0", "1"], "line 15 is no UTF-8")


def test_no_event_over_many_lines(read):
    content = pretty(EVENTS[0]) + b'\n{\n"hello": 1\n}\n' + pretty(EVENTS[1])
    assert read(content) == (["0", "1"], "line 9 is no event of Currents; the other lines were read")


@pytest.mark.parametrize(
    "value", [b"9" * 5000, b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000]
)
def test_a_value_that_python_cannot_hold_over_many_lines(value, read):
    content = pretty(EVENTS[0]) + b'\n{\n"id": "1",\n"value": ' + value + b"\n}\n"
    ids, reason = read(content)
    assert ids == ["0"]
    assert re.match(
        r"a value before line \d+ is nested too deeply$|it is no JSON, or cut off, near line \d+$", reason
    )


def test_a_log_that_begins_with_a_bracket_is_soon_set_aside(read):
    """It takes as long as its size asks for; not the square of it, which for a real log is days."""
    content = b"[2026-01-01 00:00:00] INFO something ordinary has happened\n" * 40_000
    ids, reason = read(content)
    assert not ids
    assert reason == "it is no JSON, or cut off, near line 1"


# Without end.


def test_a_line_that_is_too_long(monkeypatch, read):
    monkeypatch.setattr(json_forms, "LONGEST", 1 << 20)
    content = LINES[0] + LINES[1] + b'{"id": "' + b"x" * (4 << 20) + b'"}\n' + LINES[2]
    for packed in (content, gzip.compress(content), zstd(content)):
        assert read(packed) == (
            ["0", "1"],
            "line 3 is longer than 1 MiB: no event and no batch of Braze is",
        )


class Endless(io.RawIOBase):
    """A file that repeats one line for ever; a test ends it where nobody stops reading."""

    MOST = 12 << 20

    def __init__(self, first, line):
        super().__init__()
        self._next = first
        self._line = line
        self.given = 0

    def read(self, size=-1):
        data = self._next + self._line * (size // len(self._line) + 1)
        self._next = data[size:]
        self.given += size
        if self.given > self.MOST:
            pytest.fail("it is read for ever")
        return data[:size]


@pytest.mark.parametrize(
    ("first", "line"),
    [
        (b"{\n", b'"name": "' + b"x" * 60_000 + b'",\n'),
        (b'{"list": [\n', b'{"name": "' + b"x" * 60_000 + b'"},\n'),
        (b"[INFO] a log\n", b"[INFO] " + b"x" * 60_000 + b"\n"),
    ],
    ids=["no bracket closes", "brackets close", "a log"],
)
def test_an_endless_document(first, line, monkeypatch):
    monkeypatch.setattr(json_forms, "LONGEST", 2 << 20)
    file = Endless(first, line)
    with pytest.raises(FileSetAsideError, match=r"^a value before line \d+ does not end$|^it is no JSON"):
        list(json_forms.read_json(file, "", BitMap()))
    assert file.given < 8 << 20


READ_ONE = """
import sys
from pathlib import Path
from pyroaring import BitMap
from airflow_provider_heapbraze.events.errors import FileSetAsideError
from airflow_provider_heapbraze.events.reading import read_events
try:
    list(read_events(Path(sys.argv[1]), "", BitMap()))
except FileSetAsideError as error:
    print(error)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
def test_a_small_file_that_unpacks_to_a_huge_line(tmp_path):
    file = tmp_path / "bomb.json.gz"
    file.write_bytes(gzip.compress(LINES[0] + b'{"id": "') + gzip.compress(b"0" * (1 << 20)) * 300)
    assert file.stat().st_size < 1 << 20
    done = subprocess.run(
        [sys.executable, "-c", READ_ONE, file], capture_output=True, text=True, check=True, timeout=60
    )
    reason, memory = done.stdout.split("\n", 1)
    assert reason == "line 2 is longer than 128 MiB: no event and no batch of Braze is"
    assert int(memory.split()[1]) < 700 << 10


@pytest.mark.parametrize(
    "content", [b'[\n{"id": "1"},\n{"id": "2"},\n', b'[{"id": "1"},{"id": "2"}', b'[{"id": "1"},']
)
def test_a_list_that_is_cut_between_its_items(content, read):
    _, reason = read(content)
    assert reason.startswith("it is no JSON, or cut off, near line ")
