"""Which files a source has, and what their names say."""

from __future__ import annotations

import os
from uuid import uuid4

import pytest
from upath import UPath

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.events.sources import HourRange, SourceFile, find_files

TYPE = "users.messages.email.Open"
BRAZE = "dataexport.prod-03.S3.integration.5f0c"


@pytest.fixture(params=["pathlib", "universal-pathlib, local", "object store"])
def source(request, tmp_path):
    if request.param == "pathlib":
        return tmp_path / "source"
    if request.param == "object store":
        return UPath(f"memory://bucket-{uuid4().hex}/currents")
    return UPath((tmp_path / "source").as_uri())


def put(source, *names):
    for name in names:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def found(source):
    """Return the names of a source's files; each file can be read, and has the size that is said."""
    files = [*find_files(source)]
    for file in files:
        content = file.path.read_bytes()
        assert content.decode().endswith(file.name)
        assert file.size == len(content)
    names = [file.name for file in files]
    assert len(set(names)) == len(names)
    return names


def braze_name(event_type, hour, part):
    folder = f"{BRAZE}/event_type={event_type}/date={hour}/412/prod-03"
    return f"{folder}/{BRAZE}+{part}+0001.avro"


BRAZES = [
    braze_name(event_type, hour, part)
    for event_type in (TYPE, "users.behaviors.CustomEvent")
    for hour in ("2026-01-02-03", "2026-01-02-04")
    for part in (1, 2)
]


def test_brazes_layout(source):
    put(source, *BRAZES)
    assert sorted(found(source)) == sorted(BRAZES)
    said = {(file.event_type, file.hour) for file in find_files(source)}
    assert said == {
        (event_type, hour)
        for event_type in (TYPE, "users.behaviors.CustomEvent")
        for hour in ("2026-01-02-03", "2026-01-02-04")
    }


def test_several_integrations(source):
    names = [*BRAZES, *(name.replace("5f0c", "6a1d") for name in BRAZES)]
    put(source, *names)
    assert sorted(found(source)) == sorted(names)


@pytest.mark.parametrize(
    "names",
    [
        ["a.avro"],
        ["a.avro", "b.json", "c"],
        ["2026/01/02/a.avro", "2026/01/03/b.avro", "2025/12/31/c.avro"],
        ["only/one/folder/deep/down/a.avro"],
        ["one/a", "two/a", "a"],
        ["x/y/a", "x/a", "x.y/a", "x-y"],
        ["event_type=a/1", "other/2", "3"],
        [
            "names with blanks/a b.json",
            "ümlaut/東京.json",
            "100%/a%20b.json",
            "a+b=c/d,e;f.json",
            "q?/r#s.json",
        ],
    ],
)
def test_other_layouts(names, source):
    put(source, *names)
    assert sorted(found(source)) == sorted(names)


def test_they_come_in_the_same_order_every_time(source):
    put(source, *reversed(BRAZES), "b/2", "b/1", "a/1")
    first = found(source)
    assert found(source) == first
    assert first.index("b/1") < first.index("b/2")
    hours = [file.hour for file in find_files(source) if file.event_type == TYPE]
    assert hours == sorted(hours)


@pytest.mark.parametrize(
    "hidden",
    [
        ".hidden",
        "_SUCCESS",
        "_temporary/0/part-0.avro",
        ".heapbraze/1.json",
        "{}/_SUCCESS",
        "{}/.part-0.avro.crc",
        "{}/_temporary/part-0.avro",
        "{}/date=2026-01-02-03/_tmp/part-0.avro",
        "{}/date=2026-01-02-03/.a.avro",
    ],
)
@pytest.mark.parametrize("folder", ["event_type=x.Y", f"{BRAZE}/event_type=x.Y", "plain"])
def test_hidden_names(hidden, folder, source):
    seen = f"{folder}/date=2026-01-02-03/a.avro"
    put(source, hidden.format(folder), seen)
    assert found(source) == [seen]


def test_a_source_below_a_hidden_name(source):
    """It was asked for."""
    put(source / "_raw" / ".x", "a.avro")
    assert found(source / "_raw" / ".x") == ["a.avro"]


def test_a_single_file(source):
    put(source, "a/b.avro")
    (file,) = find_files(source / "a" / "b.avro")
    assert (file.name, file.size) == ("b.avro", 8)
    assert file.path.read_bytes() == b"a/b.avro"


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_a_source_may_be_a_part_of_brazes_layout(depth, source):
    """Whoever exports one type, one hour or one file names that; what the path says is as true."""
    put(source, BRAZES[0])
    inner = source.joinpath(*BRAZES[0].split("/")[:depth])
    (file,) = find_files(inner)
    assert (file.event_type, file.hour) == (TYPE, "2026-01-02-03")


def test_a_name_says_more_than_the_folder_of_the_source(source):
    inner = source / "users.Data" / "exports"
    put(inner, f"{TYPE}.json", f"event_type={TYPE}/a.json")
    assert {file.event_type for file in find_files(inner)} == {TYPE}
    put(source, f"event_type=x.Y/copy/event_type={TYPE}/a.json")
    (file,) = find_files(source / "event_type=x.Y" / "copy")
    assert file.event_type == TYPE


def test_where_the_source_lies_is_no_type(source):
    """An event without a type is better rejected than sent to Heap as "Team Exports"."""
    put(source, "Team_Exports/currents/2026/a.json")
    (file,) = find_files(source / "Team_Exports" / "currents")
    assert file.event_type == ""


def test_there_is_no_such_folder(source):
    with pytest.raises(ConfigurationError) as caught:
        list(find_files(source / "nothing"))
    told = str(caught.value)
    assert told.startswith("There is no folder ")
    assert told.endswith(
        "/nothing. Nothing was sent. Look at source=; where Braze has written nothing yet, make the folder."
    )


def test_an_empty_folder(source):
    source.mkdir(parents=True, exist_ok=True)
    assert found(source) == []


def test_a_folder_of_empty_folders(source):
    (source / "event_type=x.Y" / "date=2026-01-02-03").mkdir(parents=True)
    assert found(source) == []


def test_what_came_since_is_found(source):
    put(source, "a/1")
    assert found(source) == ["a/1"]
    put(source, "a/2", "b/1")
    assert found(source) == ["a/1", "a/2", "b/1"]


def test_a_name_that_another_begins_with():
    """In an object store a prefix is no folder."""
    store = f"memory://bucket-{uuid4().hex}"
    put(UPath(store), "currents/a/1", "currents-old/a/1", "currents/a2/1")
    assert found(UPath(f"{store}/currents")) == ["a/1", "a2/1"]
    assert found(UPath(f"{store}/currents/")) == ["a/1", "a2/1"]
    assert found(UPath(f"{store}/currents/a")) == ["1"]


def test_a_whole_bucket():
    bucket = UPath(f"memory://bucket-{uuid4().hex}")
    put(bucket, *BRAZES)
    assert sorted(found(bucket)) == sorted(BRAZES)


def test_what_a_store_shows_for_a_folder(monkeypatch):
    """Consoles make a folder by an empty object whose name ends with a slash."""
    source = UPath(f"memory://bucket-{uuid4().hex}/currents")
    put(source, "event_type=x.Y/a.avro")
    plain_find = type(source.fs).find

    def with_folders(self, path, **options):
        listing = dict(plain_find(self, path, **options))
        shown = f"{path}/"
        return {shown: {"name": shown, "size": 0, "type": "file"}, **listing}

    monkeypatch.setattr(type(source.fs), "find", with_folders)
    assert found(source) == ["event_type=x.Y/a.avro"]


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_links_are_followed_to_files(tmp_path):
    put(tmp_path, "real/a.avro")
    (tmp_path / "source" / "x").mkdir(parents=True)
    (tmp_path / "source" / "x" / "a.avro").symlink_to(tmp_path / "real" / "a.avro")
    (file,) = find_files(tmp_path / "source")
    assert (file.name, file.size) == ("x/a.avro", 11)


# What a name says.


def test_a_file_is_known_by_its_name_and_its_size():
    key = SourceFile("anywhere", "a/b.avro", 5).key
    assert SourceFile("elsewhere", "a/b.avro", 5).key == key
    others = [
        SourceFile("anywhere", "a/b.avro", 6).key,
        SourceFile("anywhere", "a/c.avro", 5).key,
        SourceFile("anywhere", "A/b.avro", 5).key,
        SourceFile("anywhere", "a/b.avro\x005", 5).key,
        SourceFile("anywhere", "a/b.avr", 5).key,
    ]
    assert len({key, *others}) == 6
    assert all(-(2**63) <= number < 2**63 for number in others)


def test_the_key_stays_what_it_is():
    """It stands in ledgers: another one would send all files again."""
    assert SourceFile(None, BRAZES[0], 1234).key == -1184388325879459971


def test_a_file_is_the_same_from_every_place(source, tmp_path):
    put(source, *BRAZES)
    put(tmp_path / "copy", *BRAZES)
    assert {file.key for file in find_files(source)} == {file.key for file in find_files(tmp_path / "copy")}


@pytest.mark.parametrize(
    ("name", "hour"),
    [
        (BRAZES[0], "2026-01-02-03"),
        ("date=2026-01-02-03/a", "2026-01-02-03"),
        ("x/date=2026-01-02-03/y/z", "2026-01-02-03"),
        ("x/date=2026-01-02/z", None),
        ("x/date=2026-01-02-03", None),  # a file of this name
        ("x/update=2026-01-02-03/z", None),
        ("x/date=2026-01-02-03-04/z", None),
        ("2026-01-02-03/z", None),
        ("z", None),
    ],
)
def test_hours(name, hour):
    assert SourceFile(None, name, 1).hour == hour


@pytest.mark.parametrize(
    ("name", "event_type"),
    [
        (BRAZES[0], TYPE),
        (f"event_type={TYPE}/a", TYPE),
        (f"x/event_type={TYPE}/y/z", TYPE),
        ("event_type=users.agentconsole.AgentExecuted/a", "agentconsole.AgentExecuted"),
        ("event_type=some.other.Thing/a", "some.other.Thing"),
        (f"event_type={TYPE}/users.messages.sms.Send.json", TYPE),
        (f"{TYPE}.json", TYPE),
        (f"{TYPE}.jsonl.gz", TYPE),
        (f"{TYPE}.ndjson.zst", TYPE),
        (f"{TYPE}.avro", TYPE),
        (f"{TYPE}-2026-01-02.json", TYPE),
        (f"{TYPE}+1+0001.avro", TYPE),
        (f"{TYPE}/part-0.json", TYPE),
        (f"x/{TYPE}", TYPE),
        (f"dataexport.{TYPE}.json", TYPE),
        ("agentconsole.AgentExecuted.json", "agentconsole.AgentExecuted"),
        ("users.UserOrphan.txt", "users.UserOrphan"),
        ("Email_Open/part-0.json", "Email_Open"),
        ("x/Email_Open.json.gz", "Email_Open"),
        ("email_open.json", ""),
        ("part-0.json", ""),
        ("a", ""),
    ],
)
def test_event_types(name, event_type):
    assert SourceFile(None, name, 1).event_type == event_type


@pytest.mark.parametrize(
    "name",
    ["users.json", "all_users.json", "users.csv.gz", "customers.users.jsonl", "superusers.exports.json"],
)
def test_names_that_speak_of_users_are_no_types(name):
    """An event of an unknown type is better rejected than sent to Heap as an event called "Users"."""
    assert SourceFile(None, name, 1).event_type == ""


# Hours.


def test_a_range_of_hours():
    day = HourRange("2026-01-02-00", "2026-01-03-00")
    assert "2026-01-02-00" in day
    assert "2026-01-02-23" in day
    assert "2026-01-03-00" not in day
    assert "2026-01-01-23" not in day
    assert "2025-12-31-23" not in day


def test_a_range_over_the_end_of_a_year():
    night = HourRange("2025-12-31-22", "2026-01-01-02")
    hours = [f"2025-12-31-{hour}" for hour in (21, 22, 23)] + [f"2026-01-01-0{hour}" for hour in range(4)]
    assert [hour in night for hour in hours] == [False, True, True, True, True, False, False]


def test_a_range_of_nothing():
    assert "2026-01-02-03" not in HourRange("2026-01-02-03", "2026-01-02-03")
    assert "2026-01-02-03" not in HourRange("2026-01-02-04", "2026-01-02-02")
