"""What whoever is on call sees: pages, numbers and log lines; and nothing private in any of them."""

from __future__ import annotations

import logging

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from airflow_provider_heapbraze.landing.app import make_app
from tests.unit.landing.receiving import (
    NOW,
    SECRET,
    TOKEN,
    Clock,
    ask,
    batch,
    bearer,
    files,
    landed,
    page,
    settings,
    signed,
)

# The client's own lines; and the server's access log, which pytest turns on again.
CLIENT_AND_PYTEST = {"httpcore.connection", "httpcore.http11", "uvicorn.access"}


def test_it_is_alive_and_ready(receiver, tmp_path):
    assert receiver.client.get("/health").status_code == 200
    assert receiver.client.get("/ready").json() == {"ready": True}
    assert files(tmp_path) == []


def test_it_is_not_ready_where_nothing_can_be_written(receiving, tmp_path):
    (tmp_path / "file").touch()
    receiver = receiving(tmp_path / "file" / "landing")
    answer = receiver.client.get("/ready")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "reason": "The landing path cannot be written (ENOTDIR)."}
    assert receiver.client.get("/health").status_code == 200
    assert [receiver.heap(page()).status_code, receiver.braze(batch("id-1")).status_code] == [503, 503]
    (tmp_path / "file").unlink()
    assert receiver.client.get("/ready").status_code == 503  # it has looked just now
    receiver.clock.milliseconds += 5_000
    assert receiver.client.get("/ready").status_code == 200


def test_it_is_not_ready_for_nobody(receiving, tmp_path):
    receiver = receiving(tmp_path, heap_secrets=(), braze_tokens=())
    assert "configured" in receiver.client.get("/ready").json()["reason"]


def test_it_can_be_mounted_in_another_app(tmp_path):
    import asyncio

    app = Starlette(routes=[Mount("/heapbraze/landing", make_app(settings(tmp_path), clock=Clock()))])
    headers = [(name.lower().encode(), value.encode()) for name, value in signed(page()).items()]
    status = asyncio.run(ask(app, "POST", "/heapbraze/landing/heap/segments", headers, [page()]))
    assert status == 200
    assert len(landed(tmp_path)) == 1


def test_numbers_say_what_became_of_deliveries(receiver):
    receiver.heap(page())
    receiver.heap(page(), {})
    receiver.braze(b"")
    for outcome, route in (("landed", "heap"), ("unsigned", "heap"), ("empty", "braze")):
        assert receiver.metric("heapbraze_landing_deliveries_total", route=route, outcome=outcome) == 1
    assert receiver.metric("heapbraze_landing_bytes_total", route="heap") > len(page())
    assert receiver.metric("heapbraze_landing_writes_total", outcome="done") == 1
    assert receiver.metric("heapbraze_landing_write_seconds_count") == 1
    assert receiver.metric("heapbraze_landing_open_requests", route="heap") == 0


def test_a_flood_of_refusals_is_one_line_a_minute(receiver, caplog):
    for _ in range(50):
        receiver.braze(batch("id-1"), bearer("some-wrong-token"))
    lines = [record.getMessage() for record in caplog.records if "401" in record.getMessage()]
    assert len(lines) == 1
    receiver.clock.milliseconds += 60_000
    receiver.braze(batch("id-1"), bearer("some-wrong-token"))
    assert "49 more" in caplog.messages[-1]


def test_what_fails_in_the_receiver_itself_is_no_500(receiver, tmp_path, monkeypatch, caplog):
    from airflow_provider_heapbraze.landing import bodies

    def fail(_):
        raise KeyError("private-person-1")

    monkeypatch.setattr(bodies, "parse", fail)
    for answer in (receiver.heap(page()), receiver.braze(batch("id-1"))):
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "KeyError" in caplog.text
    assert "private" not in caplog.text
    assert files(tmp_path) == []


def test_what_is_not_understood_is_said_with_where_it_is(receiver, tmp_path, caplog):
    receiver.heap(b"no JSON")
    receiver.braze(b"no JSON")
    for file in files(tmp_path):
        assert file.name in caplog.text
    assert "quarantine/heap" in caplog.text
    assert "quarantine/braze" in caplog.text


def test_nothing_private_is_said_anywhere(receiver, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    private = [SECRET, TOKEN, "private"]
    answers = [
        receiver.heap(page()),
        receiver.heap(page(), signed(page(), secret="private-other-secret")),
        receiver.heap(page(), signed(page(), NOW - 70_000)),
        receiver.heap(page(), {"Heap-Hash": "private"}),
        receiver.heap(page()[:-1]),
        receiver.braze(batch("private-id"), source="private-source"),
        receiver.braze(batch("private-id"), source="private.source"),
        receiver.braze(batch("private-id"), bearer("private-other-token")),
        receiver.braze(batch("private-id")[:-1]),
        receiver.braze(b"private no JSON", source="private-source"),
        receiver.heap(b"private no JSON"),
        receiver.braze(batch("private-id"), source="x"),
    ]
    names = [file.relative_to(tmp_path).as_posix() for file in files(tmp_path / "landing" / "heap")]
    names += [file.name for file in files(tmp_path)]
    said = [receiver.client.get(path).text for path in ("/metrics", "/ready", "/health")]
    said += [answer.text for answer in answers] + [str(answer.headers) for answer in answers]
    said += names + [record.getMessage() for record in caplog.records if record.name not in CLIENT_AND_PYTEST]
    assert not [text for text in said for word in private if word in text]


@pytest.mark.parametrize(
    "path", ["/", "/heap", "/heap/segments/", "/braze/currents", "/braze/currents/a/b", "//"]
)
def test_other_paths_are_not_found(receiver, path):
    assert receiver.client.post(path, content=page(), headers=signed(page())).status_code == 404
