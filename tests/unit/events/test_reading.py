"""Every type of event, in every form of its files; files that are not good are in test_reading_bad."""

from __future__ import annotations

import functools
import gzip
import json
import zlib
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from airflow_provider_heapbraze.events import json_forms
from airflow_provider_heapbraze.events.currents import without_unions_of
from airflow_provider_heapbraze.events.reading import read_events
from tests.currents import samples

CUSTOM = "users.behaviors.CustomEvent"
BOM = b"\xef\xbb\xbf"


def read(file, event_type="", done=()):
    """Return the rows of a file with their events, and the number of rows that the reader returned."""
    reader, rows = read_events(file, event_type, BitMap(done)), []
    while True:
        try:
            rows.append(next(reader))
        except StopIteration as end:
            return rows, end.value


@pytest.fixture
def read_bytes(tmp_path):
    def read_them(content, event_type="", done=(), name="events"):
        (tmp_path / name).write_bytes(content)
        return read(tmp_path / name, event_type, done)

    return read_them


# What the events are, told by the fixtures' records alone.


@functools.cache
def http_events():
    """Return the fixtures' Custom HTTP events by type; the file is read once."""
    lines = (samples.HERE / "http.jsonl").read_text(encoding="utf-8").splitlines()
    by_type = {event_type: [] for event_type in samples.TYPES}
    for event in map(json.loads, lines):
        by_type[event["event_type"].replace("users.agentconsole.", "agentconsole.")].append(event)
    return by_type


@functools.cache
def expected(event_type):
    """Return the fields of a type's events, those without a value left out."""
    floats = {field["name"] for field in samples.schema(event_type)["fields"] if "float" in field["type"]}
    return [
        {name: wanted(name, value, floats) for name, value in record.items() if value is not None}
        for record in samples.records(event_type)
    ]


def wanted(name, value, floats):
    if name == "properties":
        return json.loads(value)
    return samples.short_float(value) if name in floats else value


def fields(event):
    return {name: value for name, value in event.fields.items() if value is not None}


# The forms: what is in the file before it is compressed. Each holds the events of one type.


def avro(codec):
    def content(event_type, folder):
        file = folder / f"{codec}.avro"
        samples.write_avro(file, samples.schema(event_type), samples.records(event_type), codec)
        return file.read_bytes()

    return content


def flat(event_type):
    return [json.loads(line) for line in samples.flat_path(event_type).read_bytes().splitlines()]


def http(event_type):
    return http_events()[event_type]


def lines(events):
    return "".join(f"{json.dumps(event, ensure_ascii=False)}\n" for event in events)


def batch(events):
    return json.dumps(samples.http_batch(events))


def pretty_batch(events):
    return json.dumps(samples.http_batch(events), indent=2, ensure_ascii=False)


def batches(events):
    return lines([samples.http_batch(events[:2]), samples.http_batch(events[2:])])


def one_list(events):
    return json.dumps(events)


def pretty_list(events):
    return json.dumps(events, indent="\t")


def pretty_documents(events):
    return "\n".join(json.dumps(event, indent=2) for event in events)


def joined_pretty_documents(events):
    return "".join(json.dumps(event, indent=4, ensure_ascii=False) for event in events)


def joined_documents(events):
    return "".join(map(json.dumps, events))


WAYS = (
    lines,
    batch,
    pretty_batch,
    batches,
    one_list,
    pretty_list,
    pretty_documents,
    joined_pretty_documents,
    joined_documents,
)


def json_form(events, way):
    return lambda event_type, _: way(events(event_type)).encode()


FORMS = {f"Avro, {codec}": avro(codec) for codec in samples.codecs()}
FORMS |= {f"flat, {way.__name__}": json_form(flat, way) for way in WAYS}
FORMS |= {f"HTTP, {way.__name__}": json_form(http, way) for way in WAYS}


def gzip_members(content):
    """Compress as two gzip files in one, as a concatenation of files is."""
    half = len(content) // 2
    return gzip.compress(content[:half]) + gzip.compress(content[half:])


def zstd(content):
    return pa.compress(content, "zstd", asbytes=True)


def zstd_stream(content):
    sink = pa.BufferOutputStream()
    with pa.output_stream(sink, compression="zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


# How a file is packed, and a name that says something else.
PACKINGS = {
    "plain": (bytes, "part-0.parquet.zst"),
    "gzip": (gzip.compress, "part-0.avro"),
    "gzip members": (gzip_members, "part-0.json"),
    "zstd": (zstd, "part-0.json.gz"),
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("form", FORMS)
def test_every_type_in_every_form(form, packing, tmp_path):
    pack, name = PACKINGS[packing]
    for event_type in samples.TYPES:
        whole = expected(event_type)
        if form.startswith("HTTP") and not http(event_type):
            continue
        (tmp_path / name).write_bytes(pack(FORMS[form](event_type, tmp_path)))
        rows, count = read(tmp_path / name, event_type)
        assert [row for row, _ in rows] == [0, 1, 2], event_type
        assert count == 3, event_type
        assert {event.type for _, event in rows} == {event_type}
        for (_, event), known in zip(rows, whole, strict=True):
            found = fields(event)
            if form.startswith("HTTP"):  # it lacks some fields, and has them under storage's names
                assert {"id", "time"} <= found.keys() <= known.keys(), event_type
                known = {field: known[field] for field in found}  # noqa: PLW2901
            assert found == known, event_type


def test_all_types_with_an_http_form_have_it():
    assert sum(bool(http(event_type)) for event_type in samples.TYPES) == 48


@pytest.mark.parametrize("event_type", samples.TYPES)
def test_what_the_schema_marks_is_personal(event_type):
    rows, _ = read(samples.avro_path(event_type))
    assert {event.personal for _, event in rows} == {frozenset(samples.pii_fields(event_type))}


# Rows.


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_the_same_at_every_reading(form, tmp_path):
    file = tmp_path / "events"
    file.write_bytes(FORMS[form](CUSTOM, tmp_path))
    first, _ = read(file, CUSTOM)
    assert read(file, CUSTOM) == (first, 3)
    for done in ([0], [1], [0, 2], [0, 1, 2], [7]):
        rest = [(row, event) for row, event in first if row not in done]
        assert read(file, CUSTOM, done) == (rest, 3)


@pytest.mark.parametrize("codec", samples.codecs())
def test_rows_over_many_blocks(codec, tmp_path):
    file = tmp_path / "events"
    samples.write_avro(file, samples.schema(CUSTOM), samples.numbered(500), codec)
    ids = [record["id"] for record in samples.numbered(500)]
    for done in (range(0), range(490), range(100, 400), range(0, 500, 3), range(500)):
        rows, count = read(file, done=done)
        assert count == 500
        assert [(row, event.fields["id"]) for row, event in rows] == [
            (row, id_) for row, id_ in enumerate(ids) if row not in done
        ]


def test_rows_of_batches_go_on(read_bytes):
    content = lines(samples.http_batch([{"id": str(n), "event_type": "x.Y"}] * n) for n in range(4))
    rows, count = read_bytes(content.encode(), done=[2])
    assert [(row, event.fields["id"]) for row, event in rows] == [
        (0, "1"),
        (1, "2"),
        (3, "3"),
        (4, "3"),
        (5, "3"),
    ]
    assert count == 6


def test_more_than_fits_a_chunk(read_bytes):
    events = [{"id": f"{n:06}", "event_type": "x.Y", "pad": "x" * 300} for n in range(10_000)]
    content = lines(events).encode()
    assert len(content) > 3 << 20
    for packed in (content, gzip.compress(content, 1), zstd(content)):
        rows, count = read_bytes(packed)
        assert [(row, event.fields["id"]) for row, event in rows] == [(n, f"{n:06}") for n in range(count)]
        assert count == 10_000


# How text files differ.

ONE = b'{"id": "1", "time": 5, "event_type": "x.Y"}'
TWO = ONE.replace(b"1", b"2", 1)
PRETTY = json.dumps(json.loads(ONE), indent=2).encode()


@pytest.mark.parametrize(
    "content",
    [
        ONE + b"\n" + TWO,
        ONE + b"\r\n" + TWO + b"\r\n",
        BOM + ONE + b"\n" + TWO,
        BOM + ONE + b"\r\n" + BOM + TWO,  # files that were put together
        b"\n \n\r\n" + ONE + b"\n\n\t\n" + TWO + b"\n\n",
        b"\n" * 1000 + ONE + b"\n" + TWO,
        b" " + ONE + b" \n  " + TWO,
        ONE + TWO,
        b"[" + ONE + b",\n" + TWO + b"]",
        b"[\n" + ONE + b",\n" + TWO + b"\n]\n",
        ONE + b",\n" + TWO,
        BOM + PRETTY + b"\n" + TWO,
        PRETTY.replace(b"\n", b"\r\n") + b"\r\n" + TWO + b"\r\n",
        BOM + b'{"events": [\n' + ONE + b",\n" + TWO + b"\n]}",
        b'{"events": []}\n{"events": [' + ONE + b']}\n{"events": []}\n' + TWO,
        b"[]\n" + ONE + b"\n" + TWO,
    ],
)
def test_ends_of_lines_and_marks(content, read_bytes):
    rows, count = read_bytes(content)
    assert [(row, event.fields["id"]) for row, event in rows] == [(0, "1"), (1, "2")]
    assert count == 2


@pytest.mark.parametrize(
    "content", [b'{"events": []}', b'{"events": []}\n' * 3, b"[]", b'{\n"events": [\n]\n}']
)
def test_a_batch_of_nothing(content, read_bytes):
    assert read_bytes(content) == ([], 0)


def test_avro_of_nothing(tmp_path):
    samples.write_avro(tmp_path / "none.avro", samples.schema(CUSTOM), [])
    assert read(tmp_path / "none.avro") == ([], 0)


def test_json_that_only_python_reads(read_bytes):
    """A lone surrogate and NaN are no JSON, but some clients write them."""
    content = rb'{"id": "1", "event_type": "x.Y", "half": "\ud83d", "price": NaN, "big": 1e999}'
    ((_, event),), _ = read_bytes(content)
    assert event.fields["half"] == "\ud83d"
    assert event.fields["price"] != event.fields["price"]


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_brackets_in_texts(ending, read_bytes):
    """What ends a value is found by parsing, not by looking at the end of a line."""
    event = {"id": "}\n]", "event_type": "x.Y", "note": "}{", "user": {"a": "}"}}
    content = json.dumps([event, event], indent=1).encode() + ending
    rows, count = read_bytes(content)
    assert [event.fields["id"] for _, event in rows] == ["}\n]"] * 2
    assert count == 2


@pytest.mark.parametrize("form", [pretty_batch, pretty_list, pretty_documents])
def test_many_events_over_many_lines_are_not_looked_through_again_and_again(form, read_bytes, monkeypatch):
    """To start again at every bracket takes seconds, and minutes for a whole file."""
    looked_through, values_in = [], json_forms.Lines._values_in

    def count(self, text):
        looked_through.append(len(text))
        return values_in(self, text)

    monkeypatch.setattr(json_forms.Lines, "_values_in", count)
    events = [{"id": str(n), "event_type": "x.Y", "user": {}, "properties": {"a": "x"}} for n in range(1000)]
    content = form(events).encode()
    _, events_read = read_bytes(content)
    assert events_read == 1000
    assert sum(looked_through) < 5 * len(content)


VALUES = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.floats(0, 1) | st.text(st.sampled_from('a{}[]",:\\\n🎉')),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc}]"), inner, max_size=3),
    max_leaves=10,
)
STYLES = st.fixed_dictionaries(
    {"indent": st.sampled_from([None, 0, 1, 4, "\t"]), "ensure_ascii": st.booleans()}
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(VALUES, STYLES), min_size=1, max_size=6),
    st.sampled_from(["", "\n", "\n\n", ",\n", "\r\n", " , "]),
)
def test_any_documents_one_after_another(tmp_path, documents, between):
    """Written over many lines, all of them are found, however they are laid out."""
    start = json.dumps({"id": "start", "event_type": "x.Y"}, indent=1)
    written = [
        json.dumps({"id": str(number), "event_type": "x.Y", "value": value}, **style)
        for number, (value, style) in enumerate(documents)
    ]
    (tmp_path / "f").write_bytes(between.join([start, *written]).encode())
    rows, count = read(tmp_path / "f")
    assert count == len(documents) + 1
    assert [event.fields["id"] for _, event in rows[1:]] == [str(n) for n in range(len(documents))]
    for (_, event), (value, _) in zip(rows[1:], documents, strict=True):
        assert event.fields["value"] == json.loads(json.dumps(without_unions_of({"v": value})["v"]))


# Drift: what Braze adds without warning.


def drifted(folder, *more_fields, event_type=CUSTOM, values=(), **changes):
    """Write the Avro file of a type with more fields; changes are of the schema."""
    schema = samples.schema(event_type)
    known = {field["name"]: field for field in [*schema["fields"], *more_fields]}
    schema = {**schema, "fields": list(known.values()), **changes}
    records = [{**record, **dict(values)} for record in samples.records(event_type)]
    file = folder / "drifted.avro"
    samples.write_avro(file, schema, records, "deflate")
    return file


def first(file, event_type=""):
    rows, count = read(file, event_type)
    assert count == 3
    return rows[0][1]


def test_a_new_field(tmp_path):
    new = {"name": "mood", "type": ["null", "string"], "default": None}
    event = first(drifted(tmp_path, new, values={"mood": "sunny"}))
    assert event.fields["mood"] == "sunny"
    assert fields(event) == {**expected(CUSTOM)[0], "mood": "sunny"}


@pytest.mark.parametrize("doc", ["[PII] Shoe size", "Shoe size [pii]", "Shoe size. [PII]."])
def test_a_new_personal_field(doc, tmp_path):
    new = {"name": "shoe_size", "type": ["null", "int"], "default": None, "doc": doc}
    event = first(drifted(tmp_path, new, values={"shoe_size": 43}))
    assert event.personal == samples.pii_fields(CUSTOM) | {"shoe_size"}


def test_a_new_type(tmp_path):
    file = drifted(tmp_path, name="Land", namespace="com.braze.currents.inner.users.messages.pigeon")
    assert first(file).type == "users.messages.pigeon.Land"


def test_a_full_name_without_namespace(tmp_path):
    file = drifted(tmp_path, name="com.braze.inner.users.messages.email.Open", namespace="")
    assert first(file).type == "users.messages.email.Open"


@pytest.mark.parametrize("namespace", ["com.braze.currents", "", None])
def test_a_schema_that_does_not_name_the_type(namespace, tmp_path):
    file = drifted(tmp_path, name="Event", namespace=namespace)
    assert first(file, "users.messages.email.Open").type == "users.messages.email.Open"
    assert not first(file).type


def test_the_schema_knows_better_than_the_path():
    assert first(samples.avro_path(CUSTOM), "users.messages.email.Open").type == CUSTOM


@pytest.mark.parametrize("service", ["agentconsole", "contentoptimizer"])
def test_types_named_with_users_and_without(service, tmp_path):
    for prefix in ("", "users."):
        file = drifted(tmp_path, name="Done", namespace=f"com.braze.inner.{prefix}{service}")
        assert first(file).type == f"{service}.Done"


def test_a_long_time(tmp_path):
    time = {"name": "time", "type": "long"}
    event = first(drifted(tmp_path, time, values={"time": 1_764_000_000_000}))
    assert event.fields["time"] == 1_764_000_000_000


def test_a_user_id_that_may_be_missing(tmp_path):
    user = {"name": "user_id", "type": ["null", "string"], "doc": "[PII] User"}
    event = first(drifted(tmp_path, user, values={"user_id": None}))
    assert event.fields.get("user_id") is None
    assert "user_id" in event.personal


def test_logical_types(tmp_path):
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    new = [
        {"name": "opened_at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
        {"name": "born", "type": {"type": "int", "logicalType": "date"}},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    ]
    values = {"opened_at": moment, "born": moment.date(), "total": Decimal("12.30")}
    event = first(drifted(tmp_path, *new, values=values))
    assert {name: event.fields[name] for name in values} == values


def test_nested_fields(tmp_path):
    place = {"type": "record", "name": "Place", "fields": [{"name": "city", "type": "string"}]}
    new = [
        {"name": "place", "type": ["null", place]},
        {"name": "labels", "type": {"type": "map", "values": "string"}},
        {"name": "stops", "type": {"type": "array", "items": "Place"}},
    ]
    values = {"place": {"city": "Zürich"}, "labels": {"a": "b"}, "stops": [{"city": "Bern"}]}
    event = first(drifted(tmp_path, *new, values=values))
    assert {name: event.fields[name] for name in values} == values


def test_short_floats_where_they_may_be_missing(tmp_path):
    new = [
        {"name": "price", "type": ["null", "float"]},
        {"name": "cost", "type": "float"},
        {"name": "tax", "type": "double"},
    ]
    event = first(drifted(tmp_path, *new, values={"price": 9.99, "cost": 0.1, "tax": 9.989999771118164}))
    assert [event.fields[name] for name in ("price", "cost", "tax")] == [9.99, 0.1, 9.989999771118164]
    event = first(drifted(tmp_path, *new, values={"price": None, "cost": 0, "tax": 0}))
    assert event.fields.get("price") is None


PLAIN_VALUES = {
    "string": st.text(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "boolean": st.booleans(),
    "double": st.floats(allow_nan=False),
    "array": st.lists(st.text(), max_size=5),
    "bytes": st.binary(max_size=5),
}


@st.composite
def schemas_with_records(draw):
    """Make a schema of plain types, with null first, last or nowhere, and a few records of it."""
    fields, values = [{"name": "id", "type": "string"}], {"id": st.text(min_size=1)}
    for number, (kind, null) in enumerate(
        draw(st.lists(st.tuples(st.sampled_from(sorted(PLAIN_VALUES)), st.sampled_from("-fl")), max_size=8))
    ):
        avro_type = {"type": "array", "items": "string"} if kind == "array" else kind
        union = {"-": avro_type, "f": ["null", avro_type], "l": [avro_type, "null"]}[null]
        fields.append({"name": f"field_{number}", "type": union})
        values[f"field_{number}"] = PLAIN_VALUES[kind] if null == "-" else st.none() | PLAIN_VALUES[kind]
    schema = {"type": "record", "name": "com.x.inner.users.Made", "fields": fields}
    return schema, draw(st.lists(st.fixed_dictionaries(values), max_size=20))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schemas_with_records(), st.sampled_from(samples.codecs()))
def test_any_plain_schema_is_read_as_it_was_written(tmp_path, made, codec):
    schema, records = made
    samples.write_avro(tmp_path / "made", schema, records, codec)
    rows, count = read(tmp_path / "made")
    assert count == len(records)
    assert [fields(event) for _, event in rows] == [
        {name: value for name, value in record.items() if value is not None} for record in records
    ]


@pytest.mark.parametrize("codec", ["bzip2", "xz"])
def test_other_codecs_that_python_knows(codec, tmp_path):
    samples.write_avro(tmp_path / "events", samples.schema(CUSTOM), samples.numbered(5), codec)
    _, count = read(tmp_path / "events")
    assert count == 5


def test_many_gzip_members(read_bytes):
    members = b"".join(gzip.compress(line) for line in (b"", ONE + b"\n", b"", TWO))
    _, count = read_bytes(members)
    assert count == 2


def test_gzip_with_a_name_in_its_header(read_bytes):
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(ONE) + packer.flush()
    named = packed[:3] + b"\x08" + packed[4:10] + b"events.json\0" + packed[10:]
    _, count = read_bytes(named)
    assert count == 1


def test_zstd_as_a_stream(read_bytes):
    """A stream does not tell its length, and may be of several frames."""
    frames = zstd_stream(ONE + b"\n") + zstd(TWO)
    _, count = read_bytes(frames)
    assert count == 2
