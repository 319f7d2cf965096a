"""Files as they come: their endings, their damages, and what is said about them."""

from __future__ import annotations

import gzip
import json
import traceback
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.matching import match
from airflow_provider_heapbraze.membership.members import FileMembers
from airflow_provider_heapbraze.membership.tables import Workspace
from tests.unit.membership.members_conformance import Access, outcome

SECRET = "ann.secret@example.com"


def values(folder, path, *, mapping=None, access=None, **how):
    """Return the matched values of files."""
    result = match(
        FileMembers(str(path), **how), mapping or IdentityMapping(), access or Access(), folder / "ledger"
    )
    return [value for _, value, _ in sorted(outcome(result, folder / "ledger")[0])]


def refusal(folder, name, content, **how):
    """Return what is said about a file that cannot be read: nothing that it holds, nor in the traceback."""
    (folder / name).write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        values(folder, folder / name, **how)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert not (folder / "ledger").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"identity\nann\nbob\n",
        b"identity\r\nann\r\nbob\r\n",
        b"identity\nann\nbob",
        b"\xef\xbb\xbfidentity\nann\nbob\n",
        b'"identity"\n"ann"\n"bob"\n',
        b"identity\nann\n\n\nbob\n",
        b"notes, identity \nx,ann\n,bob\n",
        b'notes,identity\n"a, ""quoted""\nline\r\n",ann\n"\n",bob\n',
    ],
)
def test_csv_as_tools_write_it(tmp_path, content):
    (tmp_path / "members.csv").write_bytes(content)
    assert values(tmp_path, tmp_path / "members.csv") == ["ann", "bob"]


def test_csv_values_are_texts(tmp_path):
    (tmp_path / "members.csv").write_text("identity\n42.0\n1e3\n007\nNaN\nnull\n#1\n2024-01-01\n")
    expected = ["#1", "007", "1e3", "2024-01-01", "42.0", "NaN", "null"]
    assert values(tmp_path, tmp_path / "members.csv") == expected


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (f'{SECRET},"x', 4),
        (f"{SECRET}", 4),
        (f"{SECRET},x,y", 4),
        (f'"{SECRET}"x,y', 4),
    ],
)
def test_malformed_csv(tmp_path, row, line):
    content = f"identity,notes\nann,x\nbob,x\n{row}\ncid,x\n".encode()
    assert f"members.csv cannot be read near line {line}" in refusal(tmp_path, "members.csv", content)


@pytest.mark.parametrize(
    "content",
    [
        b"identity,notes\nann,\xff " + SECRET.encode() + b"\n",
        ("identity\n" + SECRET).encode("utf-16"),
        b'"identity\n' + SECRET.encode(),
        b"PAR1" + SECRET.encode() + b"\xff\xfe",
        ("identity\n" + SECRET + "\r\nbob\n").encode(),
    ],
)
def test_no_csv_in_utf_8(tmp_path, content):
    assert "members.csv" in refusal(tmp_path, "members.csv", content)


@pytest.mark.parametrize("line", [f"Ann,{SECRET}", "Ann,user-17", "Ann,"])
def test_a_first_line_that_is_no_header_is_not_quoted(tmp_path, line):
    said = refusal(tmp_path, "members.csv", f"{line}\n".encode())
    assert "Is there a header?" in said
    assert "Ann" not in said


def test_an_empty_file_has_no_header(tmp_path):
    assert "Its columns: none." in refusal(tmp_path, "members.csv", b"")


def test_a_column_that_is_there_twice(tmp_path):
    said = refusal(tmp_path, "members.csv", b"identity,identity\nann,bob\n")
    assert "members.csv has 2 columns 'identity'" in said


def test_a_column_in_another_case_is_taken_if_it_is_the_only_one(tmp_path):
    assert "2 columns" in refusal(tmp_path, "members.csv", b"IDENTITY,Identity\nann,bob\n")
    (tmp_path / "members.csv").write_text("IDENTITY,identity\nann,bob\n")
    assert values(tmp_path, tmp_path / "members.csv") == ["bob"]
    (tmp_path / "members.csv").write_text("IDENTITY\nann\n")
    assert values(tmp_path, tmp_path / "members.csv") == ["ann"]


@pytest.mark.parametrize("columns", ["device", "identity,device"])
def test_every_csv_file_needs_every_column(tmp_path, columns):
    (tmp_path / "a.csv").write_text("identity,device\nann,phone-1\n")
    (tmp_path / "b.csv").write_text(f"{columns}\n{columns}\n")
    if columns == "device":
        with pytest.raises(ConfigurationError, match=r"b\.csv has no column 'identity'"):
            values(tmp_path, tmp_path / "*.csv")
    else:
        assert values(tmp_path, tmp_path / "*.csv") == ["ann", "identity"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f'{{"identity": "ann"}}\n{{"identity": {SECRET}}}\n', " near line"),
        (f'{{"identity": "ann"}}\n{{"identity": "{SECRET}', " near line"),
        (f'[{{"identity": "{SECRET}"}}]', " near line 1"),
        (f'"{SECRET}"\n', " near line 1"),
        (f'{{\n"identity": "{SECRET}"\n}}\n', " near line"),
        (f'{{"identity": "ann", "identity": "{SECRET}"}}\n', " near line 1"),
        (f'{{"identity": "{SECRET}\\ud800"}}\n', " near line"),
    ],
)
def test_malformed_ndjson(tmp_path, content, line):
    said = refusal(tmp_path, "members.ndjson", content.encode())
    assert f"members.ndjson cannot be read{line}" in said


def test_ndjson_may_leave_out_what_is_null(tmp_path):
    """Keys may come late, in one of the files or not at all; if none of them comes, that is a mistake."""
    mapping = IdentityMapping(external_id="identity", device_id="device")
    late = [{"notes": ""}] * 1500 + [{"device": "phone-1"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, late)))
    (tmp_path / "b.jsonl").write_text('{"notes": "y"}\n')
    (tmp_path / "c.jsonl").write_text("")
    assert values(tmp_path, tmp_path / "*.jsonl", mapping=mapping) == ["phone-1"]
    (tmp_path / "a.jsonl").write_text('{"id": "ann", "devices": null}\n')
    with pytest.raises(ConfigurationError, match=r"no column 'identity', 'device', .* devices, id, notes\. "):
        values(tmp_path, tmp_path / "*.jsonl", mapping=mapping)


def test_ndjson_keeps_every_digit(tmp_path):
    lines = ['{"identity": 12345678901234567890123}', '{"identity": 9007199254740993}', '{"identity": 1E5}']
    (tmp_path / "members.ndjson").write_text("\n".join(lines))
    assert values(tmp_path, tmp_path / "members.ndjson") == [
        "100000",
        "12345678901234567890123",
        "9007199254740993",
    ]


def test_parquet_with_columns_of_bytes_and_of_wide_decimals(tmp_path):
    ids = pa.array([b"ann", b"\xff\xfe", None], pa.binary())
    wide = pa.array([1, 2, 3], pa.decimal256(50, 0))
    pq.write_table(pa.table({"identity": ids, "wide": wide}), tmp_path / "members.parquet")
    result = match(FileMembers(str(tmp_path / "members.parquet")), IdentityMapping(), Access(), tmp_path)
    assert result.counts["external_id"] == 1
    assert result.counts["unmatched"] == {"blank": 1, "not_text": 1}
    with pytest.raises(ConfigurationError, match="decimals of more than 38 digits"):
        values(tmp_path, tmp_path / "members.parquet", mapping=IdentityMapping("wide"))


@pytest.mark.parametrize(
    "where", [slice(0, None), slice(3, None), slice(500, None), slice(-60, -8), slice(4, 60)]
)
def test_damaged_parquet(tmp_path, where):
    """Cut off, or garbled in its footer or its data."""
    pq.write_table(pa.table({"identity": [SECRET] * 1000}), tmp_path / "whole.parquet")
    content = bytearray((tmp_path / "whole.parquet").read_bytes())
    content[where] = b"" if where.stop is None else b"\xfe" * (where.stop - where.start)
    assert "members.parquet cannot be read" in refusal(tmp_path, "members.parquet", bytes(content))


def test_a_full_disk_is_not_the_files_fault(tmp_path, monkeypatch):
    (tmp_path / "members.csv").write_text("identity\nann\n")

    def full(*args):
        raise duckdb.IOException("No space left on device")

    monkeypatch.setattr(Workspace, "write", full)
    with pytest.raises(duckdb.IOException):
        values(tmp_path, tmp_path / "members.csv")


@pytest.mark.parametrize(("ending", "codec"), [("gz", "gzip"), ("zst", "zstd")])
def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path, ending, codec):
    """DuckDB reads a zstd file up to where it is cut, and says nothing: members would be removed for it."""
    content = "identity\n" + "".join(f"user-{n * n}\n" for n in range(5000))
    packed = pa.compress(content.encode(), codec=codec, asbytes=True)
    (tmp_path / f"whole.csv.{ending}").write_bytes(packed)
    assert len(values(tmp_path, tmp_path / f"whole.csv.{ending}")) == 5000
    (tmp_path / "ledger").rename(tmp_path / "other")
    for cut in (packed[:-1], packed[: len(packed) // 2], content.encode()):
        said = refusal(tmp_path, f"members.csv.{ending}", cut)
        assert f"members.csv.{ending} is cut off, or not compressed as its ending says" in said


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("members.CSV", None),
        ("members", "csv"),
        ("members.txt", "CSV"),
        ("members[1].csv", None),
        ("it's?.csv", None),
        ("members.csv.gz", None),
        ("members.csv", "None"),
        ("members.gz", "csv"),
    ],
)
def test_names_and_formats(tmp_path, name, format_):
    content = b"identity\nann\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert values(tmp_path, tmp_path / name, format=format_) == ["ann"]


@pytest.mark.parametrize(
    ("name", "format_"), [("members", None), ("members.json", None), ("members.csv", "xlsx")]
)
def test_a_format_that_is_not_read(tmp_path, name, format_):
    said = refusal(tmp_path, name, b"identity\nann\n", format=format_)
    assert f"The format of {name} is not known: FileMembers reads csv, ndjson, jsonl, parquet." in said


@pytest.mark.parametrize(
    "path", ["", " ", "nothing.csv", "nowhere/", "nowhere/*.csv", "empty", "empty/*.csv"]
)
@pytest.mark.parametrize("kind", [Path, UPath])
def test_nothing_there(tmp_path, path, kind):
    base = tmp_path if kind is Path else f"memory://{tmp_path.name}-{path.replace('/', '-')}"
    (kind(base) / "empty").mkdir(parents=True)
    uri = path if not path.strip() else f"{base}/{path}"
    with pytest.raises(ConfigurationError, match=r"finds no file at|is empty"):
        values(tmp_path, uri, access=Access(path=kind))


def test_a_pattern_without_a_folder(tmp_path, monkeypatch):
    (tmp_path / "members-1.csv").write_text("identity\nann\n")
    monkeypatch.chdir(tmp_path)
    assert values(tmp_path, "members-?.csv") == ["ann"]


def test_rows_are_numbered_through_all_files(tmp_path):
    for name, blanks in {"a": "x\n\n", "b": '"  "\ny\n', "c": '"\t"\n'}.items():
        (tmp_path / f"{name}.csv").write_text(f"identity\n{blanks}")
    result = match(FileMembers(str(tmp_path)), IdentityMapping(), Access(), tmp_path / "ledger")
    _, unmatched = outcome(result, tmp_path / "ledger")
    assert [(row["row"], row["external_id"]) for row in unmatched] == [(2, None), (3, "  "), (5, "\t")]


def test_no_copy_stays_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    bucket = UPath(f"memory://{tmp_path.name}")
    for number in range(3):
        (bucket / f"{number}.csv.gz").write_bytes(gzip.compress(b"identity\nuser-%d\n" % number))
    assert values(tmp_path, f"{bucket}/*", access=Access(path=UPath)) == ["user-0", "user-1", "user-2"]
    assert list((tmp_path / "temporary").iterdir()) == []
