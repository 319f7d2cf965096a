from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from upath import UPath

from airflow_provider_heapbraze.membership.tables import identifier, literal, workspace


def test_a_workspace_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with workspace() as space:
        space.sql("SET memory_limit = '60MB'")
        space.sql("SET preserve_insertion_order = false")
        space.sql("CREATE TABLE big AS SELECT range AS n, md5(range::VARCHAR) AS text FROM range(3_000_000)")
        assert any((space.folder / "spill").iterdir()), "what memory cannot hold is in its folder"
        assert space.folder.parent == tmp_path
        assert space.count("big WHERE n < 10") == 10
    assert list(tmp_path.iterdir()) == []


def test_it_is_gone_after_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(IsADirectoryError), workspace() as space:
        space.folder.write_text("a folder")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_downloaded():
    with workspace() as space:
        names = ("autoinstall_known_extensions", "autoload_known_extensions")
        assert [space.ask(f"SELECT current_setting('{name}')")[0][0] for name in names] == [False, False]


def test_the_text_of_a_time_does_not_depend_on_the_machine(monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    with workspace() as space:
        assert space.ask("SELECT '2024-01-01 00:00:00+02'::TIMESTAMPTZ::VARCHAR") == [
            ("2023-12-31 22:00:00+00",)
        ]


def test_rows_are_written_in_their_order(tmp_path):
    file = tmp_path / "it's.parquet"
    with workspace() as space:
        assert space.write("SELECT range AS n FROM range(500_000) ORDER BY n DESC", file) == 500_000
        assert space.write("SELECT 1 AS n WHERE false", tmp_path / "empty.parquet") == 0
    assert pq.read_table(file)["n"].to_pylist()[:3] == [499_999, 499_998, 499_997]
    assert pq.read_schema(tmp_path / "empty.parquet").names == ["n"]


def test_loading_a_file_of_the_ledger(tmp_path):
    remote = UPath(f"memory://{tmp_path.name}/set.parquet")
    with workspace() as space:
        space.write("SELECT range * 10 AS n FROM range(3)", tmp_path / "set.parquet")
        remote.write_bytes((tmp_path / "set.parquet").read_bytes())
        (tmp_path / "cut.parquet").write_bytes(remote.read_bytes()[:-10])
        assert space.load("here", tmp_path / "set.parquet", rows=3)
        assert space.load("there", remote)
        assert space.ask("SELECT n, file_row_number FROM there") == [(0, 0), (10, 1), (20, 2)]
        assert not space.load("other", tmp_path / "set.parquet", rows=4)
        assert not space.load("cut", tmp_path / "cut.parquet")
        assert not space.load("missing", tmp_path / "missing.parquet")
        assert not space.load("missing_there", remote.parent / "missing.parquet")


def test_rows_that_are_in_memory():
    with workspace() as space:
        space.rows("two", "n BIGINT, text VARCHAR", {"n": [1, 2], "text": ["a", None]})
        space.rows("none", "n BIGINT", {"n": []})
        assert space.ask("FROM two") == [(1, "a"), (2, None)]
        assert space.count("none") == 0


def test_names_and_texts_in_sql():
    with workspace() as space:
        name, text = "a\"b; 'c'", 'it\'s; "x"'
        space.sql(f"CREATE VIEW odd AS SELECT {literal(text)} AS {identifier(name)}")
        assert space.ask(f"SELECT {identifier(name)} FROM odd") == [(text,)]
        assert literal(Path("/a'b")) == "'/a''b'"
