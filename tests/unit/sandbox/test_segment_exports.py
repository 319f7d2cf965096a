"""The stand-in's segment exports, held against Braze's documentation: archives, a bucket, waiting."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import re
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import requests

from airflow_provider_heapbraze.sandbox import connections, exports
from airflow_provider_heapbraze.sandbox.models import Segment
from airflow_provider_heapbraze.sandbox.server import SandboxServer
from airflow_provider_heapbraze.sandbox.world import World
from tests.unit.sandbox.exported import exported, lines, names, until, unzipped

LONG = 3600  # seconds: nothing that takes so long is ready in a test
ALIAS = {"alias_name": "ann", "alias_label": "crm"}


@pytest.fixture(autouse=True)
def segment(heapbraze_sandbox):
    heapbraze_sandbox.add_segments([{"id": "s", "name": "Power users", "cohort_id": "cohort-1"}])


def is_ready(sandbox) -> bool:
    return all(export["ready"] for export in sandbox.exports())


def test_an_export_is_an_archive_behind_a_url(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users(count=5)
    heapbraze_sandbox.settings(export_users_per_file=2)
    caller.add("user-0", "user-1", "user-2", "user-3", "user-4")

    answer = caller.export()

    assert (answer.status_code, answer.json()["message"]) == (201, "success")
    assert re.fullmatch(r"[0-9a-f-]{36}-[0-9]{10,}", answer.json()["object_prefix"])
    url = answer.json()["url"]
    assert re.fullmatch(re.escape(heapbraze_sandbox.url) + r"/exports/[\w-]{20,}\.zip", url)
    got = caller.fetch(url)
    assert (got.status_code, got.headers["Content-Type"]) == (200, "application/zip")
    assert not any(name.lower().startswith("x-ratelimit") for name in got.headers)
    files = unzipped(got.content)
    assert all(re.fullmatch(r"[0-9a-f]+\.txt", name) for name in files)
    assert [len(lines(text)) for text in files.values()] == [2, 2, 1]
    assert names(lines(*files.values())) == [f"user-{n}" for n in range(5)]
    assert heapbraze_sandbox.exports() == [
        {
            "segment_id": "s",
            "object_prefix": answer.json()["object_prefix"],
            "ready": True,
            "files": 3,
            "users": 5,
        }
    ]


def test_gzip_is_one_file_of_all_lines(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users(count=3)
    heapbraze_sandbox.settings(export_users_per_file=2)
    caller.add("user-0", "user-1", "user-2")

    url = caller.export(output_format="gzip").json()["url"]

    assert url.endswith(".gz")
    got = caller.fetch(url)
    assert got.headers["Content-Type"] == "application/gzip"
    assert names(lines(gzip.decompress(got.content))) == ["user-0", "user-1", "user-2"]


def test_an_empty_segment_is_an_archive_without_files(caller):
    assert exported(caller) == []


def test_only_fields_that_were_asked_for_and_are_there_are_shown(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_segments([{"id": "all", "name": "Everybody"}])
    heapbraze_sandbox.add_users(
        [{"external_id": "ann", "aliases": [ALIAS], "device_ids": ["phone-1"]}, {"device_ids": ["phone-2"]}]
    )
    caller.track(
        {
            "external_id": "ann",
            "vip": True,
            "old": False,
            "note": "",
            "tags": [],
            "visits": 0,
            "email": "a@b.c",
        }
    )
    fields = [
        "external_id",
        "user_aliases",
        "braze_id",
        "custom_attributes",
        "devices",
        "email",
        "gender",
        "x",
    ]

    ann, other = sorted(exported(caller, "all", fields=fields), key=len, reverse=True)

    assert ann.keys() == {*fields} - {"gender", "x"}
    assert (ann["external_id"], ann["user_aliases"], ann["email"]) == ("ann", [ALIAS], "a@b.c")
    assert ann["custom_attributes"] == {"vip": True, "visits": 0}
    assert [device.keys() for device in ann["devices"]] == [{"model", "os"}]
    assert other.keys() == {"braze_id", "devices"}
    ids = [user["braze_id"] for user in exported(caller, "all", fields=["braze_id"])]
    assert sorted(ids) == sorted([ann["braze_id"], other["braze_id"]])
    assert exported(caller, "all", fields=["gender"]) == [{}, {}]


def test_a_segment_is_a_cohort_an_attribute_or_everybody(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users(count=4)
    heapbraze_sandbox.add_segments(
        [
            {"id": "all", "name": "Everybody"},
            {"id": "vip", "name": "VIPs", "attribute": "vip"},
            {"id": "none", "name": "Not VIPs", "attribute": "vip", "attribute_value": False},
            {"id": "tag", "name": "Tagged", "attribute": "tags", "attribute_value": "heap"},
            {"id": "other", "name": "Another cohort", "cohort_id": "nobody"},
        ]
    )
    caller.add("user-1", "user-2")
    values = ({"vip": True}, {"vip": False}, {"vip": 1}, {"tags": ["heap", "x"]})
    caller.track(*({"external_id": f"user-{n}", **value} for n, value in enumerate(values)))

    expected = {
        "s": ["user-1", "user-2"],
        "all": ["user-0", "user-1", "user-2", "user-3"],
        "vip": ["user-0"],
        "none": ["user-1"],
        "tag": ["user-3"],
        "other": [],
    }
    assert {name: names(exported(caller, name)) for name in expected} == expected
    for name, members in expected.items():
        shown = {"segment_id": name, "size": len(members), "members": members}
        assert heapbraze_sandbox.segment(name) == shown
    assert heapbraze_sandbox.state()["segments"] == 6
    with pytest.raises(ValueError, match="404"):
        heapbraze_sandbox.segment("missing")


@pytest.mark.parametrize(
    "segment", [{"cohort_id": "c", "attribute": "vip"}, {"id": "../s"}, {"id": ""}, {"cohort": "c"}]
)
def test_impossible_segments_are_refused(heapbraze_sandbox, segment):
    with pytest.raises(ValueError, match="422"):
        heapbraze_sandbox.add_segments([{"id": "x", "name": "X", **segment}])


def test_half_a_surrogate_pair_is_shown_as_it_was_sent(caller, heapbraze_sandbox):
    caller.track({"external_id": "half-\ud83d", "vip": True})
    heapbraze_sandbox.add_segments([{"id": "vip", "name": "VIPs", "attribute": "vip"}])
    assert exported(caller, "vip") == [{"external_id": "half-\ud83d"}]


def test_members_are_those_of_the_start(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users(count=2)
    caller.add("user-0")
    url = caller.export().json()["url"]
    caller.add("user-1")
    assert names(lines(*unzipped(caller.fetch(url).content).values())) == ["user-0"]


@pytest.mark.parametrize(
    "body",
    [
        {"segment_id": "missing"},
        {"segment_id": ...},
        {"segment_id": ["s"]},
        {"fields": ...},
        {"fields": []},
        {"fields": "external_id"},
        {"fields": [1]},
        {"output_format": "csv"},
        {"output_format": None},
        {"callback_endpoint": 1},
    ],
)
def test_a_bad_request_is_refused(caller, heapbraze_sandbox, body):
    assert caller.export(**body).status_code == 400
    assert heapbraze_sandbox.exports() == []


def test_a_body_that_is_no_object_is_refused(caller):
    bearer = f"Bearer {connections.REST_API_KEY}"
    for path in ("/users/export/segment", "/users/export/ids"):
        assert caller.post(path, [], Authorization=bearer).status_code == 400


def test_a_callback_is_taken_and_nobody_is_called(caller):
    assert caller.export(callback_endpoint="https://example.com/").status_code == 201


def test_keys_and_permissions(caller, heapbraze_sandbox):
    assert caller.export(key="not-the-rest-key").status_code == 401
    heapbraze_sandbox.settings(permissions=["users.export.ids"])
    assert caller.export().status_code == 403
    heapbraze_sandbox.settings(permissions=["users.export.segment"])
    assert caller.export().status_code == 201


def test_a_url_is_404_until_the_export_is_ready(caller, heapbraze_sandbox):
    heapbraze_sandbox.settings(export_delay=LONG)
    url = caller.export().json()["url"]
    assert caller.fetch(url).status_code == 404
    assert [export["ready"] for export in heapbraze_sandbox.exports()] == [False]
    assert caller.fetch(f"{caller.url}/exports/other.zip").status_code == 404

    heapbraze_sandbox.reset()
    heapbraze_sandbox.add_segments([{"id": "s", "name": "S"}])
    heapbraze_sandbox.settings(export_delay=0.2)
    assert caller.fetch(url).status_code == 404
    url = caller.export().json()["url"]
    until(lambda: caller.fetch(url).status_code == 200)
    assert is_ready(heapbraze_sandbox)


def test_a_url_takes_no_second_authorisation_and_no_other_method(caller, heapbraze_sandbox):
    url = caller.export().json()["url"]

    bearer = f"Bearer {connections.REST_API_KEY}"
    assert caller.fetch(url, Authorization=bearer).status_code == 400
    assert caller.session.head(url, timeout=10).status_code == 403
    assert caller.fetch(url).status_code == 200

    log = heapbraze_sandbox.requests()
    assert [(entry["endpoint"], entry["method"], entry["path"], entry["status"]) for entry in log] == [
        ("segment-export", "POST", "/users/export/segment", 201),
        ("segment-export-file", "GET", "/exports/{name}", 400),
        ("segment-export-file", "HEAD", "/exports/{name}", 403),
        ("segment-export-file", "GET", "/exports/{name}", 200),
    ]
    token = url.rsplit("/", 1)[1].removesuffix(".zip")
    assert token not in json.dumps([log, heapbraze_sandbox.exports()])


def test_a_segment_has_one_export_at_a_time(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_segments([{"id": "t", "name": "Another"}])
    heapbraze_sandbox.settings(export_delay=LONG)
    assert caller.export().status_code == 201

    second = caller.export()

    assert second.status_code == 429
    assert int(second.headers["X-RateLimit-Remaining"]) > 0
    assert "Retry-After" not in second.headers
    assert caller.export("t").status_code == 201
    assert heapbraze_sandbox.state()["limits_broken"] == {}
    assert len(heapbraze_sandbox.exports()) == 2


def test_when_an_export_is_ready_the_next_one_may_start(caller, heapbraze_sandbox):
    heapbraze_sandbox.settings(export_delay=0.2)
    caller.export()
    until(lambda: caller.export().status_code == 201)
    assert len(heapbraze_sandbox.exports()) == 2


def test_a_company_has_100_exports_at_a_time(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_segments([{"id": f"t-{n}", "name": "T"} for n in range(101)])
    heapbraze_sandbox.settings(export_delay=LONG)
    statuses = [caller.export(f"t-{n}").status_code for n in range(101)]
    assert statuses == [201] * 100 + [429]


def test_exports_count_toward_the_pool(caller, heapbraze_sandbox):
    heapbraze_sandbox.settings(limits={"pool": {"limit": 1, "seconds": 1e9}})
    url = caller.export().json()["url"]
    assert caller.export().headers["X-RateLimit-Remaining"] == "0"
    assert heapbraze_sandbox.state()["limits_broken"] == {"pool": 1}
    assert caller.fetch(url).status_code == 200


def test_faults_meet_exports_and_their_files(caller, heapbraze_sandbox):
    heapbraze_sandbox.faults(
        next=[
            {"endpoint": "segment-export", "kind": "5xx-before"},
            {"endpoint": "segment-export", "kind": "5xx-after"},
            {"endpoint": "segment-export-file", "status": 503},
            {"endpoint": "segment-export-file", "kind": "unclear-before"},
            {"endpoint": "segment-export-file", "kind": "cut-before"},
        ]
    )
    assert [caller.export().status_code >= 500 for _ in range(2)] == [True, True]
    assert len(heapbraze_sandbox.exports()) == 1
    url = caller.export().json()["url"]
    assert [caller.fetch(url).status_code for _ in range(2)] == [503, 201]
    with pytest.raises(requests.exceptions.ConnectionError):
        caller.fetch(url)
    assert caller.fetch(url).status_code == 200


@pytest.mark.parametrize(("output_format", "suffix"), [(None, "zip"), ("gzip", "gz")])
def test_with_a_bucket_an_export_is_files_in_it(caller, heapbraze_sandbox, tmp_path, output_format, suffix):
    heapbraze_sandbox.add_users(count=5)
    heapbraze_sandbox.settings(export_folder=str(tmp_path), export_users_per_file=2)
    caller.add("user-0", "user-1", "user-2", "user-3", "user-4")
    days = {datetime.now(UTC).date().isoformat()}

    answer = caller.export(output_format=output_format or ...).json()

    assert answer.keys() == {"message", "object_prefix"}
    until(lambda: is_ready(heapbraze_sandbox))
    days.add(datetime.now(UTC).date().isoformat())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    places = {path.parent.relative_to(tmp_path).parts for path in files}
    assert places <= {("segment-export", "s", day, answer["object_prefix"]) for day in days}
    assert all(re.fullmatch(rf"[0-9a-f]+\.{suffix}", path.name) for path in files)
    contents = [path.read_bytes() for path in files]
    if suffix == "zip":
        texts = [text for content in contents for text in unzipped(content).values()]
    else:
        texts = [gzip.decompress(content) for content in contents]
    assert sorted(len(lines(text)) for text in texts) == [1, 2, 2]
    assert names(lines(*texts)) == [f"user-{n}" for n in range(5)]


def test_a_bucket_is_empty_until_there_are_files(caller, heapbraze_sandbox, tmp_path):
    heapbraze_sandbox.add_users(count=1)
    heapbraze_sandbox.settings(export_folder=str(tmp_path), export_delay=LONG)
    caller.add("user-0")
    assert caller.export().status_code == 201
    assert caller.export().status_code == 429
    assert list(tmp_path.iterdir()) == []
    assert [(export["ready"], export["files"]) for export in heapbraze_sandbox.exports()] == [(False, 1)]


def test_an_empty_segment_leaves_no_files_in_a_bucket(caller, heapbraze_sandbox, tmp_path):
    heapbraze_sandbox.settings(export_folder=str(tmp_path))
    caller.export()
    until(lambda: is_ready(heapbraze_sandbox))
    assert list(tmp_path.iterdir()) == []


def test_files_come_whole_one_after_the_other(tmp_path, monkeypatch):
    pauses, seen = [], []

    async def sleep(seconds):
        pauses.append(seconds)
        seen.append(sorted(path.read_bytes() for path in tmp_path.glob("*")))

    # Not in asyncio itself: servers of other tests, in threads of this process, sleep there, too.
    monkeypatch.setattr(exports, "asyncio", SimpleNamespace(sleep=sleep))
    plain = exports.Format("txt", "text/plain", lambda texts: texts[0])

    asyncio.run(exports._deliver(plain, [b"a", b"b", b"c"], tmp_path, 6))

    assert pauses == [2, 2, 2]
    assert seen == [[], [b"a"], [b"a", b"b"]]
    assert len(list(tmp_path.glob("[!.]*"))) == len(list(tmp_path.iterdir())) == 3


def test_a_bucket_that_takes_no_files_ends_the_export(caller, heapbraze_sandbox, tmp_path):
    (tmp_path / "segment-export").write_text("not a folder")
    heapbraze_sandbox.add_users(count=1)
    heapbraze_sandbox.settings(export_folder=str(tmp_path))
    caller.add("user-0")
    caller.export()
    until(lambda: caller.export().status_code == 201)
    assert heapbraze_sandbox.exports()[0]["ready"] is False


def test_a_reset_ends_what_runs(caller, heapbraze_sandbox, tmp_path):
    heapbraze_sandbox.add_users(count=100)
    # A file every 20 milliseconds, for longer than it takes to come to the reset.
    heapbraze_sandbox.settings(export_folder=str(tmp_path), export_delay=2.0, export_users_per_file=1)
    caller.add(*(f"user-{number}" for number in range(100)))
    caller.export()
    until(lambda: list(tmp_path.rglob("*.zip")))

    heapbraze_sandbox.reset()

    assert heapbraze_sandbox.exports() == []
    there = set(tmp_path.rglob("*.zip"))
    time.sleep(0.3)
    assert set(tmp_path.rglob("*.zip")) == there
    assert len(there) < 100


def test_in_a_world_that_has_ended_nothing_is_delivered(tmp_path):
    world = World()
    world.change_settings(world.settings.model_copy(update={"export_folder": str(tmp_path)}))
    world.end()
    form = exports.FORMATS["zip"]
    exports._start(world, Segment(id="s", name="S"), ["external_id"], form, "http://127.0.0.1/")
    assert [export.delivery for export in world.exports.started] == [None]


def test_a_server_stops_while_an_export_runs(tmp_path, caplog):
    with SandboxServer(users=1) as sandbox:
        sandbox.add_segments([{"id": "s", "name": "Everybody"}])
        sandbox.settings(export_folder=str(tmp_path), export_delay=LONG)
        answer = requests.post(
            f"{sandbox.url}/users/export/segment",
            json={"segment_id": "s", "fields_to_export": ["external_id"]},
            headers={"Authorization": f"Bearer {connections.REST_API_KEY}"},
            timeout=10,
        )
        assert answer.status_code == 201
    gc.collect()
    assert [record.name for record in caplog.records if record.name == "asyncio"] == []
