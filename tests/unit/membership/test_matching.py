"""The rule of matching, the same from every source."""

from __future__ import annotations

import csv
import json
import math
import sqlite3
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.matching import match, read_match
from airflow_provider_heapbraze.membership.members import FileMembers, SqlMembers

MAPPING = IdentityMapping(
    external_id="identity",
    alias_name="email",
    alias_label="mail",
    device_id="device",
    identified="identified",
)
COLUMNS = ["identity", "email", "device", "identified"]


class Rows:
    """What a source may ask for; SQL runs on sqlite, and counts how many chunks are held at once."""

    def __init__(self, rows=(), chunk=2, columns=COLUMNS):
        self.rows = rows
        self.chunk = chunk
        self.columns = columns

    def path(self, uri):
        return UPath(uri) if "://" in uri else Path(uri)

    @contextmanager
    def query(self, conn_id, sql):
        assert (conn_id, sql) == ("warehouse", "SELECT members")
        rows = list(self.rows)
        yield self.columns, iter([rows[n : n + self.chunk] for n in range(0, len(rows), self.chunk)])


def from_csv(rows, folder):
    with (folder / "members.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([["" if value is None else value for value in row] for row in rows])
    return FileMembers(str(folder / "members.csv")), Rows()


def from_ndjson(rows, folder):
    lines = [json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in rows]
    (folder / "members.ndjson").write_text("\n".join(lines))
    return FileMembers(str(folder / "members.ndjson")), Rows()


def from_parquet(rows, folder):
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    table = {name: pa.array(values, pa.string()) for name, values in zip(COLUMNS, columns, strict=True)}
    pq.write_table(pa.table(table), folder / "members.parquet")
    return FileMembers(str(folder / "members.parquet")), Rows()


def from_sql(rows, folder):
    return SqlMembers("warehouse", "SELECT members"), Rows(rows)


SOURCES = {"csv": from_csv, "ndjson": from_ndjson, "parquet": from_parquet, "sql": from_sql}


@pytest.fixture(params=SOURCES)
def source(request):
    """Each kind of source; all of them pass the same tests."""
    return SOURCES[request.param]


def matched(source, rows, folder, mapping=MAPPING):
    members, access = source(rows, folder)
    result = match(members, mapping, access, folder / "ledger")
    return result, identifiers(folder, result), unmatched(folder, result)


def identifiers(folder, result):
    file = folder / "ledger" / "matches" / result.fingerprint / result.file_of("identifiers")
    return sorted(duckdb.sql(f"SELECT kind, value, label FROM read_parquet('{file}')").fetchall())


def unmatched(folder, result):
    file = folder / "ledger" / "matches" / result.fingerprint / result.file_of("unmatched")
    return duckdb.sql(f"SELECT \"row\", reason FROM read_parquet('{file}') ORDER BY ALL").fetchall()


ROWS = [
    ("ann", "a@x.test", "phone-1", "true"),  # external id goes over all
    (None, "b@x.test", "phone-2", "true"),  # identified: alias, never the device
    (None, None, "phone-3", "true"),  # identified without an id: nobody
    (None, None, "phone-4", "false"),  # anonymous: device
    (None, "e@x.test", "phone-5", "false"),  # anonymous: device before alias
    (None, "f@x.test", None, "false"),
    (None, None, None, "false"),
    ("  ann  ", None, None, "true"),  # the same once more
    ("Ann", None, None, "true"),  # case makes another person
    ("x" * 988, "i@x.test", None, "true"),  # cannot be used: the alias can
    ("ü" * 494, None, "phone-9", "false"),  # 988 bytes; the device can
    ("y" * 988, None, "phone-10", "true"),
]
EXPECTED = sorted(
    [
        ("external_id", "ann", ""),
        ("alias", "b@x.test", "mail"),
        ("device_id", "phone-4", ""),
        ("device_id", "phone-5", ""),
        ("alias", "f@x.test", "mail"),
        ("external_id", "Ann", ""),
        ("alias", "i@x.test", "mail"),
        ("device_id", "phone-9", ""),
    ]
)


def test_every_source_gives_the_same_match(source, tmp_path):
    result, found, failed = matched(source, ROWS, tmp_path)
    assert found == EXPECTED
    assert failed == [(3, "identified_without_id"), (7, "blank"), (12, "too_long")]
    assert result.counts == {
        "members": 12,
        "matched": 8,
        "external_id": 2,
        "alias": 3,
        "device_id": 3,
        "duplicates": 1,
        "unmatched": {"blank": 1, "identified_without_id": 1, "too_long": 1},
    }
    assert read_match(tmp_path / "ledger" / "matches" / result.fingerprint) == result


def test_the_fingerprint_is_of_the_content(source, tmp_path):
    first, *_ = matched(source, ROWS, tmp_path)
    second, *_ = matched(source, ROWS[::-1], tmp_path)
    other, *_ = matched(source, ROWS[1:], tmp_path)
    assert first.fingerprint == second.fingerprint != other.fingerprint


def test_no_rows_are_an_empty_segment(source, tmp_path):
    result, found, _ = matched(source, [], tmp_path)
    assert found == []
    assert result.counts["members"] == 0


def test_a_missing_column_is_said_before_anything_else(source, tmp_path):
    mapping = IdentityMapping(external_id="user_name")
    with pytest.raises(ConfigurationError, match="no column 'user_name'"):
        matched(source, ROWS, tmp_path, mapping)


def test_without_an_identified_column_an_external_id_makes_a_row_identified(source, tmp_path):
    mapping = IdentityMapping(
        external_id="identity", alias_name="email", alias_label="mail", device_id="device"
    )
    rows = [
        ("x" * 988, None, "phone-1", None),
        (None, "b@x.test", "phone-2", None),
        (None, "c@x.test", None, None),
    ]
    _, found, failed = matched(source, rows, tmp_path, mapping)
    assert found == [("alias", "c@x.test", "mail"), ("device_id", "phone-2", "")]
    assert failed == [(1, "too_long")]


def test_where_only_an_alias_is_mapped_it_makes_a_row_identified(source, tmp_path):
    mapping = IdentityMapping(external_id=None, alias_name="email", alias_label="mail", device_id="device")
    rows = [(None, "a@x.test", "phone-1", None), (None, "", "phone-2", None)]
    _, found, _ = matched(source, rows, tmp_path, mapping)
    assert found == [("alias", "a@x.test", "mail"), ("device_id", "phone-2", "")]


NUMBERS = [
    (42, "42"),
    (42.0, "42"),
    (0, "0"),
    (-7.0, "-7"),
    (42.5, "42.5"),
    (9007199254740993, "9007199254740993"),
    (18446744073709551615, "18446744073709551615"),
    (1e3, "1000"),
    (True, "true"),
    ("42.0", "42.0"),
    ("  u  ", "u"),
    ("\u00a0u\t", "u"),
]


@pytest.mark.parametrize(("value", "text"), NUMBERS)
def test_values_become_text(value, text, tmp_path):
    mapping = IdentityMapping(external_id="identity")
    for source in (from_ndjson, from_sql):
        _, found, _ = matched(source, [(value, None, None, None)], tmp_path, mapping)
        assert found == [("external_id", text, "")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("42.00"), "42"),
        (Decimal("42.50"), "42.5"),
        (UUID("12345678123456781234567812345678"), "12345678-1234-5678-1234-567812345678"),
        (b"ann", "ann"),
    ],
)
def test_values_of_databases_become_text(value, text, tmp_path):
    mapping = IdentityMapping(external_id="identity")
    _, found, _ = matched(from_sql, [(value, None, None, None)], tmp_path, mapping)
    assert found == [("external_id", text, "")]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "blank"),
        ("", "blank"),
        (" \t\u3000 ", "blank"),
        (math.nan, "not_finite"),
        (math.inf, "not_finite"),
        ({"nested": True}, "nested"),
        (["a"], "nested"),
        ("é" * 494, "too_long"),
    ],
)
def test_values_that_cannot_be_used(value, reason, tmp_path):
    mapping = IdentityMapping(external_id="identity")
    _, found, failed = matched(from_sql, [(value, None, None, None)], tmp_path, mapping)
    assert (found, failed) == ([], [(1, reason)])


def test_mixed_types_in_one_column(tmp_path):
    mapping = IdentityMapping(external_id="identity")
    values = ["ann", 42, 42.0, {"nested": True}, None, Decimal("7.0"), True, math.nan, b"bob", b"\xff"]
    rows = [(value, None, None, None) for value in values]
    members, access = SqlMembers("warehouse", "SELECT members"), Rows(rows, chunk=100)
    result = match(members, mapping, access, tmp_path / "ledger")
    assert [value for _, value, _ in identifiers(tmp_path, result)] == ["42", "7", "ann", "bob", "true"]
    assert result.counts["duplicates"] == 1
    assert result.counts["unmatched"] == {"blank": 1, "nested": 2, "not_finite": 1}


def test_numbers_in_parquet(tmp_path):
    table = pa.table({"identity": pa.array([1.0, 2.5, math.nan, None]), "n": pa.array([1, 2, 3, None])})
    pq.write_table(table, tmp_path / "members.parquet")
    for column, expected in (("identity", ["1", "2.5"]), ("n", ["1", "2", "3"])):
        members = FileMembers(str(tmp_path / "members.parquet"))
        result = match(members, IdentityMapping(external_id=column), Rows(), tmp_path / "ledger")
        assert [value for _, value, _ in identifiers(tmp_path, result)] == expected


@pytest.mark.parametrize(
    ("value", "identified"),
    [
        *((value, True) for value in ("true", "T", 1, "2026-01-01", 0.5)),
        *((value, False) for value in ("false", "0", 0, "0.0", " ", None, "No")),
    ],
)
def test_what_makes_a_row_identified(value, identified, tmp_path):
    _, found, _ = matched(from_sql, [(None, None, "phone", value)], tmp_path)
    assert found == ([] if identified else [("device_id", "phone", "")])


@pytest.mark.parametrize(
    "mapping",
    [
        IdentityMapping(external_id=None),
        IdentityMapping(alias_name="email"),
        IdentityMapping(alias_label="mail"),
        IdentityMapping(alias_name="email", alias_label="  "),
    ],
)
def test_a_mapping_that_cannot_be_used(mapping, tmp_path):
    with pytest.raises(ConfigurationError, match="Nothing was sent"):
        matched(from_csv, ROWS, tmp_path, mapping)


def test_columns_of_a_warehouse_in_capitals(tmp_path):
    access = Rows([("ann",)], columns=["IDENTITY"])
    members = SqlMembers("warehouse", "SELECT members")
    result = match(members, IdentityMapping(), access, tmp_path / "ledger")
    assert result.counts["external_id"] == 1


def test_a_folder_and_a_pattern(tmp_path):
    folder = tmp_path / "segment"
    folder.mkdir()
    for number in range(3):
        (folder / f"part-{number}.csv").write_text(f"identity\nuser-{number}\n")
    (folder / "_SUCCESS").write_text("")
    for path in (folder, folder / "part-*.csv"):
        result = match(FileMembers(str(path)), IdentityMapping(), Rows(), tmp_path / "ledger")
        assert result.counts["matched"] == 3


def test_compressed_and_remote_files(tmp_path):
    import gzip

    for name, data in (
        ("a.csv.gz", gzip.compress(b"identity\nann\n")),
        ("a.jsonl.gz", gzip.compress(b'{"identity": "ann"}\n')),
        ("a.csv", b"identity\nann\n"),
    ):
        path = UPath(f"memory://members/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        result = match(FileMembers(str(path)), IdentityMapping(), Rows(), UPath("memory://ledger"))
        assert result.counts["matched"] == 1
        assert read_match(UPath(result.uri)) == result


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.csv", None, "no file"),
        ("members.xlsx", b"?", "format"),
        ("members.parquet", b"no parquet private-person", "cannot be read"),
        ("members.ndjson", b'{"identity": "private-person', "cannot be read"),
        ("members.csv", b'identity,email\n"private-person,x\n"y"z,1,2,3\n', "cannot be read"),
    ],
)
def test_files_that_cannot_be_read(name, content, says, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=says) as caught:
        match(FileMembers(str(tmp_path / name)), IdentityMapping(), Rows(), tmp_path / "ledger")
    assert "private-person" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_columns_that_have_our_own_names(tmp_path):
    """Blank, odd and dated cells of a column called ``is_identified`` mean what they mean everywhere."""
    header = ["external", "alias", "device", "is_identified"]
    mapping = IdentityMapping("external", "alias", "mail", "device", "is_identified")
    rows = [
        (None, None, "phone", " "),
        (None, "a@x.test", "phone", "2026-01-01"),
        ("ann", None, None, "maybe"),
    ]
    access = Rows(rows, chunk=10, columns=header)
    result = match(SqlMembers("warehouse", "SELECT members"), mapping, access, tmp_path / "ledger")
    assert {kind for kind, _, _ in identifiers(tmp_path, result)} == {"device_id", "alias", "external_id"}


@pytest.mark.parametrize("bad", [b'private-person,"unterminated', b"private-person-\xff,x"])
def test_a_line_that_cannot_be_read_is_not_quoted(bad, tmp_path):
    """Also far down in the file, where DuckDB's look at its beginning has not been."""
    good = b"".join(b"user-%d,x\n" % number for number in range(120_000))
    (tmp_path / "members.csv").write_bytes(b"identity,email\n" + good + bad + b"\n")
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        match(FileMembers(str(tmp_path / "members.csv")), IdentityMapping(), Rows(), tmp_path / "ledger")
    assert "private-person" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_file_without_a_header_shows_nobody(tmp_path):
    (tmp_path / "members.csv").write_text("ann@private.test,1\nbob@private.test,2\n")
    with pytest.raises(ConfigurationError, match="Is there a header") as caught:
        match(FileMembers(str(tmp_path / "members.csv")), IdentityMapping(), Rows(), tmp_path / "ledger")
    assert "private" not in str(caught.value)


def test_numbers_that_stand_for_several_ids(tmp_path):
    _, found, failed = matched(
        from_sql, [(9007199254740993.0, None, None, None)], tmp_path, IdentityMapping()
    )
    assert (found, failed) == ([], [(1, "imprecise")])


def test_rows_of_a_query_are_streamed(tmp_path):
    """A chunk is let go before the next one is asked for."""
    import weakref

    class Chunk(list):
        pass

    alive: list[weakref.ref[Chunk]] = []

    class Streaming(Rows):
        @contextmanager
        def query(self, conn_id, sql):
            def chunks():
                for number in range(20):
                    assert sum(ref() is not None for ref in alive) <= 2
                    chunk = Chunk((f"user-{number}-{n}",) for n in range(100))
                    alive.append(weakref.ref(chunk))
                    yield chunk

            yield ["identity"], chunks()

    result = match(SqlMembers("x", "y"), IdentityMapping(), Streaming(), tmp_path / "ledger")
    assert result.counts["matched"] == 2000


def test_a_match_that_is_gone_is_said(tmp_path):
    with pytest.raises(LedgerDamagedError, match="Clear the match task"):
        read_match(tmp_path / "nowhere")


VALUE = st.one_of(
    st.none(),
    st.sampled_from(["", "  ", "a", "A", " a ", "b", "x" * 987, "x" * 988]),
    st.integers(-3, 3),
    st.sampled_from([1.0, 1.5, math.nan, math.inf]),
    st.just({"nested": 1}),
)


def reference(row):
    """Say the rule once more, in Python."""
    external, alias, device, identified = row
    cells = {"external_id": external, "alias": alias, "device_id": device}
    order = ["external_id", "alias"] if identified else ["external_id", "device_id", "alias"]
    problems = []
    for kind in order:
        text, problem = normalised(cells[kind])
        if not problem:
            return kind, text
        problems.append(problem)
    worse = [problem for problem in problems if problem != "blank"]
    return None, worse[0] if worse else ("identified_without_id" if identified else "blank")


def normalised(value):
    if isinstance(value, dict):
        return None, "nested"
    if isinstance(value, float) and not math.isfinite(value):
        return None, "not_finite"
    text = (
        ""
        if value is None
        else str(int(value) if value == value // 1 else value)
        if not isinstance(value, str)
        else value
    )
    text = text.strip()
    if not text:
        return None, "blank"
    return (text, None) if len(text.encode()) <= 987 else (None, "too_long")


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.tuples(VALUE, VALUE, VALUE, st.booleans()), max_size=6))
def test_the_rule_is_the_reference(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("reference")
    access = Rows(rows, chunk=1)  # a row at a time: each column has one type
    result = match(SqlMembers("warehouse", "SELECT members"), MAPPING, access, folder / "ledger")
    expected = [reference(row) for row in rows]
    found = {(kind, value) for kind, value, _ in identifiers(folder, result)}
    assert found == {(kind, text) for kind, text in expected if kind}
    failed = [(number, reason) for number, (kind, reason) in enumerate(expected, 1) if not kind]
    assert unmatched(folder, result) == failed


def test_sqlite_rows_as_they_are(tmp_path):
    """A real cursor, with a column that holds several types."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE members (identity)")
        database.executemany("INSERT INTO members VALUES (?)", [("ann",), (42,), (4.0,), (None,)])
        rows = database.execute("SELECT identity FROM members").fetchall()
    access = Rows(rows, chunk=100, columns=["identity"])
    result = match(SqlMembers("warehouse", "SELECT members"), IdentityMapping(), access, tmp_path / "ledger")
    assert [value for _, value, _ in identifiers(tmp_path, result)] == ["4", "42", "ann"]
