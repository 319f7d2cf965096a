"""The example DAGs of the other ways out of Heap, as users copy them, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta

import fastavro
import httpx
import pytest
import requests

from airflow_provider_heapbraze.landing.app import make_app
from airflow_provider_heapbraze.landing.settings import Settings
from airflow_provider_heapbraze.sandbox.connections import CURRENTS_TOKEN, WEBHOOK_SECRET
from airflow_provider_heapbraze.segments_sync.pages import segment_folder
from tests.postgres_server import postgres  # noqa: F401 - a fixture
from tests.unit.landing.receiving import signed
from tests.unit.segments_sync.pushing import SEGMENT, page

PEOPLE = [f"private-person-{number:06}" for number in range(300)]


@pytest.fixture
def imported(airflow):
    """Run a DAG for a cohort; return whom Braze holds then."""
    airflow.sandbox.add_users([{"external_id": person} for person in PEOPLE])

    def run(dag_id, cohort_id, **environment):
        airflow.environment.update(environment)
        printed = airflow.test_dag("2026-11-24", dag_id=dag_id)
        assert "private-person" not in printed
        assert "private-person" not in (airflow.home / "airflow.db").read_bytes().decode(errors="replace")
        return set(airflow.sandbox.cohort(cohort_id)["members"])

    return run


def request(webhook):
    """Return a webhook's body and headers, signed now."""
    body = json.dumps(webhook).encode()
    return body, signed(body, int(time.time() * 1000), WEBHOOK_SECRET)


def push(path, webhooks):
    """Post webhooks to a landing service, one after another."""
    app = make_app(Settings(path=path, heap_secrets=(WEBHOOK_SECRET,)))

    async def post():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://landing") as client:
            for webhook in webhooks:
                body, headers = request(webhook)
                answer = await client.post("/heap/segments", content=body, headers=headers)
                assert answer.status_code == 200

    asyncio.run(post())


def test_segments_sync(airflow, imported):
    first = [page("first", PEOPLE[100:200], number=2, total=2), page("first", PEOPLE[:100], total=2)]
    push(airflow.landed, [*first, page("second", PEOPLE[200:210], remove=PEOPLE[:10]), first[0]])
    held = imported(
        "heap_cohort_from_segments_sync",
        "heap-free-customers",
        HEAPBRAZE_LANDING_PATH=airflow.landed.as_uri(),
        HEAP_SEGMENT_ID=str(SEGMENT),
    )
    assert held == set(PEOPLE[10:210])


def test_heap_connect(airflow, imported):
    lately = (datetime.now(UTC) - timedelta(days=3)).strftime("%Y-%m-%d %H:%M:%S")
    write_dump(
        airflow.dumps,
        users=[{"user_id": number, "identity": person} for number, person in enumerate(PEOPLE)],
        checkout_begin=[{"user_id": number, "time": lately} for number in range(60)],
        purchase=[{"user_id": number, "time": lately} for number in range(20)],
    )
    held = imported("heap_cohort_from_heap_connect", "heap-began-checkout")
    assert held == set(PEOPLE[20:60])


def write_dump(root, **tables):
    """Write a full dump; every column is a text or a number."""
    listed = []
    for name, rows in tables.items():
        fields = [
            {"name": column, "type": ["null", "long" if isinstance(value, int) else "string"]}
            for column, value in rows[0].items()
        ]
        part = root / "sync_7" / name / "part-00000-guid-c000.avro"
        part.parent.mkdir(parents=True)
        with part.open("wb") as file:
            fastavro.writer(file, {"type": "record", "name": name, "fields": fields}, rows, codec="snappy")
        address = f"s3://heap-rs3-bucket/{part.relative_to(root)}"
        listed.append({"name": name, "columns": [*rows[0]], "files": [address], "incremental": False})
    (root / "manifests").mkdir()
    (root / "manifests" / "sync_7.json").write_text(json.dumps({"dump_id": 7, "tables": listed}))


def test_warehouse(imported, postgres):  # noqa: F811 - the fixture
    postgres.execute("CREATE SCHEMA main_production")
    postgres.execute(
        "CREATE TABLE main_production.users (user_id bigint, identity text, last_modified bigint)"
    )
    postgres.execute("CREATE TABLE main_production.segment_power_users (user_id bigint)")
    rows = ", ".join(f"({number}, '{person}', {number})" for number, person in enumerate(PEOPLE))
    postgres.execute(f"INSERT INTO main_production.users VALUES {rows}, (7, 'somebody-that-was', 1)")
    postgres.execute("INSERT INTO main_production.segment_power_users SELECT generate_series(5, 24)")
    try:
        held = imported(
            "heap_cohort_from_warehouse",
            "heap-power-users",
            AIRFLOW_CONN_HEAP_WAREHOUSE=json.dumps(postgres.connection),
        )
    finally:
        postgres.execute("DROP SCHEMA main_production CASCADE")
    assert held == set(PEOPLE[5:25])


def test_airflows_own_server_takes_what_is_pushed(running_airflow):
    """The plugin, with the secrets of the default connections; whoever has none is sent away."""
    landing = f"{running_airflow.url}/heapbraze/landing"
    body, headers = request(page("first", PEOPLE[:3]))
    assert (
        requests.post(f"{landing}/heap/segments", data=body, headers=headers, timeout=30).status_code == 200
    )
    (landed,) = segment_folder(running_airflow.landed, SEGMENT).rglob("*.ndjson")
    assert json.loads(landed.read_text())["body"]["data"]["add"] == [{"id": person} for person in PEOPLE[:3]]

    batch = {"events": [{"id": "event-1", "event_type": "users.messages.email.Open", "time": 1}]}
    for token, status in ((CURRENTS_TOKEN, 200), ("token-of-somebody-else", 401)):
        answer = requests.post(
            f"{landing}/braze/currents/production",
            json=batch,
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )
        assert answer.status_code == status
    (landed,) = (running_airflow.landed / "braze" / "production").rglob("*.ndjson")
    assert json.loads(landed.read_text()) == batch
    assert requests.get(f"{landing}/ready", timeout=30).json() == {"ready": True}
