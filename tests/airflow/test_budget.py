"""Which store holds the shared budgets, as Airflow's configuration says it."""

from __future__ import annotations

import json
import sys
import tempfile

import pytest

from airflow_provider_heapbraze.clients.braze import CohortChange
from airflow_provider_heapbraze.clients.budget import Budget
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.clients.shared_file import shared_folder
from airflow_provider_heapbraze.hooks.braze import BrazeHook

PARTNER_KEYS = {"partner_api_key": "secret-partner-api-key", "data_import_key": "secret-data-import-key"}
SOMEBODY = [CohortChange(["a-person"], [], [], should_remove=False)]


@pytest.fixture
def hook(vendor, connection):
    vendor.answers["/partners/heap/cohorts/users"] = (201, {})
    return BrazeHook(connection("braze", host=vendor.url, extra=PARTNER_KEYS))


@pytest.fixture
def shared(monkeypatch):
    """Name a connection as the one of the shared budget."""

    def name(**connection):
        monkeypatch.setenv("AIRFLOW_CONN_COUNTED_HERE", json.dumps(connection))
        monkeypatch.setenv("AIRFLOW__HEAPBRAZE__BUDGET", "counted_here")

    return name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Give the folder in which the machine keeps temporary files, empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("airflow_provider_heapbraze.hooks._budget.shared_folder", shared_folder)
    return tmp_path


def send(hook):
    with hook.get_conn() as client:
        client.change_cohort("a-cohort", SOMEBODY)


def test_by_default_it_is_a_file_of_this_machine(hook, folder, vendor):
    send(hook)
    (file,) = folder.glob("heapbraze-*/requests.sqlite")
    content = file.read_bytes()
    assert vendor.url.encode() not in content
    assert not [key for key in PARTNER_KEYS.values() if key.encode() in content]


def test_who_tries_once_waits_for_nobody(hook, folder):
    with hook.get_quick_conn() as client:
        assert isinstance(client.cohort_budget, Budget)
    assert not list(folder.iterdir())


def test_it_can_be_in_postgres(hook, folder, shared, postgres):
    postgres.execute("DROP TABLE IF EXISTS heapbraze_budget")
    shared(**postgres.connection)
    send(hook)
    ((name, document),) = postgres.execute("SELECT name, document FROM heapbraze_budget")
    assert name.isalnum()
    assert json.loads(document)["lanes"] == {}
    assert not list(folder.iterdir())


def test_it_can_be_in_redis(hook, folder, shared, redis_server):
    pytest.importorskip("airflow.providers.redis")
    with redis_server.client() as client:
        client.flushall()
        shared(**redis_server.connection)
        send(hook)
        (key,) = client.scan_iter()
    assert key.startswith(b"heapbraze:budget:")
    assert not list(folder.iterdir())


def test_a_connection_that_is_not_there_is_told(hook, monkeypatch):
    monkeypatch.setenv("AIRFLOW__HEAPBRAZE__BUDGET", "counted_nowhere")
    with pytest.raises(ConfigurationError, match=r"'counted_nowhere', which \[heapbraze\] budget names"):
        hook.get_conn()


def test_a_connection_of_another_type_is_told(hook, shared):
    shared(conn_type="mysql", host="somewhere")
    with pytest.raises(ConfigurationError, match="'mysql': a shared budget needs redis or postgres"):
        hook.get_conn()


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_a_provider_that_is_missing_is_told(hook, shared, monkeypatch, kind, vendor):
    monkeypatch.setitem(sys.modules, f"airflow.providers.{kind}.hooks.{kind}", None)
    shared(conn_type=kind, host="somewhere")
    with pytest.raises(ConfigurationError, match=rf"pip install airflow-provider-heapbraze\[{kind}\]"):
        send(hook)
    assert not vendor.requests
