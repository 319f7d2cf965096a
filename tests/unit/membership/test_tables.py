from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from upath import UPath

from airflow_provider_heapbraze.membership.tables import SETTINGS, identifier, literal, workspace


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


WORKING = """
import tempfile
from airflow_provider_heapbraze.membership.tables import workspace
with workspace() as space:
    space.sql("CREATE TABLE people AS SELECT 'private-person-1' AS id")
    space.write("FROM people", space.folder / "people.parquet")
    print(space.folder, flush=True)
    input()
"""


@contextmanager
def working(folder):
    """Give a process that has a workspace in this folder, and the workspace's own folder."""
    with subprocess.Popen(
        [sys.executable, "-c", WORKING],
        cwd=Path(__file__).parents[3],
        env={"TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_what_a_killed_process_left_is_removed_by_the_next_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with working(tmp_path) as (alive, in_use):
        with working(tmp_path) as (process, left_behind):
            process.kill()
            process.wait(60)
        assert (left_behind / "people.parquet").exists()
        others = {tmp_path / f"heapbraze-{name}" for name in ("1000", "x7f2kq0a")}
        for folder in others:  # what runs share on a machine; and another's, with no lock of ours
            folder.mkdir()
        just_made = in_use.with_name(f"{in_use.name[:-4]}made")  # its process is about to take the lock
        just_made.mkdir()
        with workspace() as space, workspace() as inner:
            assert set(tmp_path.iterdir()) == {*others, just_made, in_use, space.folder, inner.folder}
        assert (in_use / "people.parquet").exists()
        alive.communicate("\n", timeout=60)
    assert set(tmp_path.iterdir()) == {*others, just_made}


def test_a_link_to_a_folder_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with workspace() as space:
        name = space.folder.name
        for file in space.folder.iterdir():
            if file.is_file():
                (elsewhere / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).symlink_to(elsewhere)
    with workspace():
        pass
    assert list(elsewhere.iterdir())


def test_where_files_cannot_be_locked_it_works_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(fcntl, "flock", refuse)
    with workspace() as first, workspace() as second:
        assert (first.count("range(3)"), second.count("range(3)")) == (3, 3)
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


def test_no_bar_is_drawn_into_a_tasks_log():
    """In a process without a script, such as a forked task's, DuckDB would draw one after two seconds."""
    code = (
        "from airflow_provider_heapbraze.membership.tables import workspace\n"
        "with workspace() as space:\n"
        "    print(space.ask(\"SELECT current_setting('enable_progress_bar')\"))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[(False,)]\n"


@pytest.mark.parametrize(
    ("there_is", "may_be"), [("300MiB", "300.0 MiB"), ("64GiB", "4.6 GiB"), ("1TiB", "4.6 GiB")]
)
def test_it_takes_some_memory_and_not_the_machines(monkeypatch, there_is, may_be):
    monkeypatch.setitem(SETTINGS, "memory_limit", there_is)
    with workspace() as space:
        assert space.ask("SELECT current_setting('memory_limit')") == [(may_be,)]
