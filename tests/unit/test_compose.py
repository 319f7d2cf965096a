"""docker-compose.yaml: as the specification has it, with no secret of its own, and nobody is root."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from compose_spec import PyCompose

from stack import compose

PROJECT = Path(__file__).resolve().parents[2]
FILE = PROJECT / "docker-compose.yaml"
DAGS = PROJECT / "dags"
CONTENT = yaml.safe_load(FILE.read_text())
SERVICES = CONTENT["services"]


EXAMPLE = compose.variables_of(PROJECT / ".env.example")


def test_it_is_as_the_specification_has_it():
    PyCompose.from_json(compose.as_json(FILE, EXAMPLE)).validate()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\$\{(\w+):\?", FILE.read_text()))))
def test_nothing_starts_without_a_secret(name):
    variables = {other: value for other, value in EXAMPLE.items() if other != name}
    with pytest.raises(SystemExit, match=name):
        compose.as_json(FILE, variables)


def test_what_has_a_default_is_no_secret():
    defaults = re.findall(r"\$\{(\w+):-([^}]*)\}", FILE.read_text())
    assert {value.isdigit() for _, value in defaults} == {True}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service(name):
    about = SERVICES[name]
    assert about["user"] not in {"root", "0", "0:0"}
    assert about["restart"] == "unless-stopped" or name == "initialise"
    assert "healthcheck" in about or name in {"network", "initialise"}
    assert re.fullmatch(r"[\w./-]+:\d[\w.-]*", about["image"]), "an image of a version"


def test_what_the_dags_ask_for_is_what_they_are_given():
    asked = set(re.findall(r'os\.environ\.get\("(\w+)"', "".join(map(Path.read_text, DAGS.glob("*.py")))))
    given = {name for name in CONTENT["x-airflow"]["environment"] if not name.startswith("AIRFLOW")}
    assert given - {"TZ"} <= asked


def test_workers_share_a_budget_beside_celerys_messages(tmp_path):
    found = compose.services(FILE, EXAMPLE, tmp_path)
    environment = found["worker-1"].environment
    assert environment == found["worker-2"].environment | {
        name: environment[name] for name in ["AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT"]
    }
    conn_id = environment["AIRFLOW__HEAPBRAZE__BUDGET"]
    budget = json.loads(environment[f"AIRFLOW_CONN_{conn_id.upper()}"])
    broker = urlsplit(environment["AIRFLOW__CELERY__BROKER_URL"])
    assert budget["conn_type"] == broker.scheme == "redis"
    assert (budget["host"], budget["port"], budget["password"]) == (
        broker.hostname,
        broker.port,
        broker.password,
    )
    assert f"/{budget['extra']['db']}" != broker.path


def test_only_the_landing_service_is_open_to_others():
    ports = [port for about in SERVICES.values() for port in about.get("ports", [])]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == [
        "${LANDING_PORT:-8070}:${LANDING_PORT:-8070}"
    ]


def test_folders_of_containers_are_folders_here(tmp_path):
    found = compose.services(FILE, EXAMPLE, tmp_path)
    assert list(found) == [name for name, about in SERVICES.items() if "command" in about]
    environment = found["worker-1"].environment
    assert environment["AIRFLOW_HOME"] == str(tmp_path / "airflow")
    assert environment["AIRFLOW__CORE__DAGS_FOLDER"] == str(PROJECT / "dags")
    assert environment["AIRFLOW__HEAPBRAZE__LEDGER"] == f"file://{tmp_path}/volumes/heapbraze/ledger"
    assert found["redis"].command[-1].count("$REDIS_PASSWORD") == 1
    assert found["api-server"].needs == {"initialise": compose.COMPLETED, "redis": "service_healthy"}
    assert found["sandbox"].environment == {}
