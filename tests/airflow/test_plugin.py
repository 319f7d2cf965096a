"""The landing service as a plugin of Airflow's API server."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import time

import httpx
import pytest
from airflow import models, plugins_manager, settings
from fastapi import FastAPI
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

from airflow_provider_heapbraze import plugin
from airflow_provider_heapbraze.plugin import landing
from airflow_provider_heapbraze.segments_sync.pages import segment_folder
from tests.unit.landing.receiving import signed
from tests.unit.segments_sync.pushing import SEGMENT, page

HEAP_SECRET, NEXT_SECRET = "secret-of-the-webhook", "secret-of-next-month"
BRAZE_TOKEN = "token-of-the-connector"


@pytest.fixture
def landed(tmp_path, monkeypatch):
    """Switch the service on; return where it writes."""
    monkeypatch.setenv("AIRFLOW__HEAPBRAZE__LANDING", "True")
    monkeypatch.setenv("AIRFLOW__HEAPBRAZE__LANDING_PATH", (tmp_path / "landed").as_uri())
    for conn_type, extra in (
        ("heap", {"webhook_secret": f"{HEAP_SECRET}, {NEXT_SECRET}"}),
        ("braze", {"currents_token": BRAZE_TOKEN}),
    ):
        connection = {"conn_type": conn_type, "login": "app-id-of-a-test", "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_type.upper()}_DEFAULT", json.dumps(connection))
    monkeypatch.setattr(landing, "_service", landing.Service())
    return tmp_path / "landed"


@pytest.fixture
def post():
    """Post to a server that mounts what the plugin offers, as Airflow's does."""
    app = FastAPI()
    for offered in importlib.reload(plugin).HeapBrazePlugin.fastapi_apps:
        app.mount(offered["url_prefix"], offered["app"])

    async def ask(path, **request):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
            return await client.post(f"/heapbraze/landing/{path}", **request)

    return lambda path, **request: asyncio.run(ask(path, **request))


def post_page(post, secret):
    body = json.dumps(page("a task", ["somebody-in-heap"])).encode()
    headers = signed(body, int(time.time() * 1000), secret)
    return post("heap/segments", content=body, headers=headers)


def lines(folder):
    files = sorted(folder.rglob("*.ndjson"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.mark.parametrize("secret", [HEAP_SECRET, NEXT_SECRET])
def test_a_webhook_is_landed(landed, post, secret):
    assert post_page(post, secret).status_code == 200
    (line,) = lines(segment_folder(landed, SEGMENT))
    assert line["body"]["data"]["add"] == [{"id": "somebody-in-heap"}]


def test_a_batch_is_landed(landed, post):
    batch = {"events": [{"id": "event-1", "event_type": "users.messages.email.Open", "time": 1}]}
    for token, status in ((BRAZE_TOKEN, 200), ("another-token-entirely", 401)):
        headers = {"Authorization": f"Bearer {token}"}
        answer = post("braze/currents/production", json=batch, headers=headers)
        assert answer.status_code == status
    assert lines(landed / "braze" / "production") == [batch]


def test_a_wrong_secret_is_refused(landed, post):
    assert post_page(post, "secret-of-somebody-else").status_code == 403
    assert not landed.exists()


def test_without_a_secret_the_sender_comes_again(landed, post, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_HEAP_DEFAULT", json.dumps({"conn_type": "heap"}))
    answer = post_page(post, HEAP_SECRET)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert "webhook_secret in the extra of the connection heap_default" in answer.text


def test_without_a_token_the_sender_comes_again(landed, post, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_BRAZE_DEFAULT")
    answer = post("braze/currents/production", json={})
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert "currents_token in the extra of the connection braze_default" in answer.text


def test_a_secret_that_is_filled_in_later_counts(landed, post, monkeypatch):
    connection = os.environ["AIRFLOW_CONN_HEAP_DEFAULT"]
    monkeypatch.delenv("AIRFLOW_CONN_HEAP_DEFAULT")
    assert post_page(post, HEAP_SECRET).status_code == 503
    monkeypatch.setenv("AIRFLOW_CONN_HEAP_DEFAULT", connection)
    assert post_page(post, HEAP_SECRET).status_code == 503, "the connections are not read for each request"
    monkeypatch.setattr(landing, "READ_EVERY", 0.0)
    assert post_page(post, HEAP_SECRET).status_code == 200


@pytest.fixture
def database(monkeypatch, tmp_path):
    """Look for connections where Airflow's API server does: in a database, in a folder that can be moved."""
    for conn_type in ("HEAP", "BRAZE"):
        monkeypatch.delenv(f"AIRFLOW_CONN_{conn_type}_DEFAULT")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setattr(landing, "READ_EVERY", 0.0)
    folder = tmp_path / "database"
    folder.mkdir()
    engine = create_engine(f"sqlite:///{folder}/airflow.db", poolclass=NullPool)
    models.Connection.metadata.create_all(engine, [models.Connection.__table__])
    monkeypatch.setattr(settings, "Session", sessionmaker(engine))
    return folder


def test_a_database_that_is_away_is_said_once_and_the_sender_comes_again(
    landed, database, post, monkeypatch, caplog
):
    with settings.Session() as session:
        extra = json.dumps({"webhook_secret": HEAP_SECRET})
        session.add(models.Connection(conn_id="heap_default", conn_type="heap", extra=extra))
        session.commit()
    assert post_page(post, HEAP_SECRET).status_code == 200
    away = database.rename(database.with_name("away"))
    for _ in range(3):
        answer = post_page(post, HEAP_SECRET)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
        assert "is away" in answer.text
        assert "No secret" not in answer.text
    [line] = [record for record in caplog.records if record.name == landing.log.name]
    assert "OperationalError" in line.getMessage()
    assert "deliveries get 503 and come again" in line.getMessage()
    assert HEAP_SECRET not in caplog.text
    away.rename(database)
    assert post_page(post, HEAP_SECRET).status_code == 503, "it is not asked for each request"
    monkeypatch.setattr(landing, "AWAY_SECONDS", 0.0)
    assert post_page(post, HEAP_SECRET).status_code == 200
    assert len(lines(segment_folder(landed, SEGMENT))) == 2


def test_a_connection_that_is_nowhere_is_not_a_database_that_is_away(landed, database, post):
    answer = post_page(post, HEAP_SECRET)
    assert (answer.status_code, "No secret of Heap's webhook" in answer.text) == (503, True)


def test_without_a_path_it_says_what_is_missing(landed, post, monkeypatch, caplog):
    monkeypatch.delenv("AIRFLOW__HEAPBRAZE__LANDING_PATH")
    answer = post_page(post, HEAP_SECRET)
    assert (answer.status_code, "[heapbraze] landing_path" in answer.text) == (503, True)
    assert "[heapbraze] landing_path" in caplog.text
    monkeypatch.setenv("AIRFLOW__HEAPBRAZE__LANDING_PATH", landed.as_uri())
    assert post_page(post, HEAP_SECRET).status_code == 200, "it is tried again"


def test_it_is_off_by_default(post):
    assert post_page(post, HEAP_SECRET).status_code == 404


def test_airflow_finds_the_plugin():
    if hasattr(plugins_manager, "_get_plugins"):
        plugins_manager._get_plugins.cache_clear()
        found, errors = plugins_manager._get_plugins()
    else:  # Airflow 3.1
        plugins_manager.ensure_plugins_loaded()
        found, errors = plugins_manager.plugins, plugins_manager.import_errors
    assert ("heapbraze" in {plugin.name for plugin in found}, errors) == (True, {})
