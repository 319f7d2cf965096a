"""What a connection's fields become: an address, keys, limits and a session."""

from __future__ import annotations

import pytest
from airflow.models.connection import Connection as StoredConnection
from airflow.sdk import BaseHook
from airflow.sdk._shared.secrets_masker import _secrets_masker, redact
from requests.utils import default_headers

from airflow_provider_heapbraze.clients.braze import BrazeLimits, Limit
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.hooks._connection import open_transport
from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.hooks.heap import HeapHook
from airflow_provider_heapbraze.locations import path_of

HOST = "https://rest.iad-01.braze.com"


def braze(conn_id):
    with BrazeHook(conn_id).get_conn() as client:
        return client


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        pytest.param({"host": HOST}, HOST, id="host"),
        pytest.param({"host": " rest.iad-01.braze.com/ "}, HOST, id="host without a scheme"),
        pytest.param({"host": "braze.example", "port": 8443}, "https://braze.example:8443", id="port"),
        pytest.param({"extra": {"instance": "EU-01"}}, "https://rest.fra-01.braze.eu", id="instance"),
        pytest.param({"host": HOST, "extra": {"instance": "EU-01"}}, HOST, id="host goes before instance"),
        pytest.param(
            {"host": "", "extra": {"instance": " us-10 "}}, "https://rest.us-10.braze.com", id="blanks"
        ),
        pytest.param({"host": "http://127.0.0.1:8099"}, "http://127.0.0.1:8099", id="http for this machine"),
    ],
)
class TestAddress:
    def test_of_a_connection_in_json(self, connection, fields, base_url):
        assert braze(connection("braze", **fields)).base_url == base_url

    def test_of_the_uri_that_the_ui_tests(self, monkeypatch, fields, base_url):
        stored = StoredConnection(conn_id="braze_ui", conn_type="braze", **fields)
        monkeypatch.setenv("AIRFLOW_CONN_BRAZE_UI", stored.get_uri())
        assert braze("braze_ui").base_url == base_url


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "Fill in the host .* or the extra instance"),
        ({"host": " ", "extra": {"instance": ""}}, "Fill in the host"),
        ({"extra": {"instance": "US-99"}}, "give the host itself"),
        ({"host": "http://rest.iad-01.braze.com"}, "Use https"),
        ({"host": "https://[rest"}, "no .*address"),
        ({"host": "braze.example:443", "port": 443}, "no .*address"),
        ({"host": HOST, "extra": {"cohort_requests_per_hour": 0}}, "cohort_requests_per_hour"),
        ({"host": HOST, "extra": {"track_requests_per_3_seconds": "many"}}, "track_requests_per_3_seconds"),
        ({"host": HOST, "extra": {"attributes_per_request": 7.5}}, "attributes_per_request"),
        ({"host": HOST, "password": "rest-api-key\nrest-api-key"}, "rest_api_key"),
        ({"host": HOST, "extra": {"partner_name": "he/ap"}}, "partner_name"),
    ],
)
def test_a_braze_connection_that_cannot_work_is_refused(connection, fields, says):
    with pytest.raises(ConfigurationError, match=says):
        BrazeHook(connection("braze", **fields)).get_conn()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "fill in the app id"),
        ({"login": "123456", "extra": {"region": "moon"}}, "regions us and eu"),
        ({"login": "123456", "host": "http://heapanalytics.com"}, "Use https"),
    ],
)
def test_a_heap_connection_that_cannot_work_is_refused(connection, fields, says):
    with pytest.raises(ConfigurationError, match=says):
        HeapHook(connection("heap", **fields)).get_conn()


def test_keys_lose_the_blanks_that_copying_brings(connection):
    extra = {
        "partner_api_key": "partner-api-key\n",
        "data_import_key": " data-import-key",
        "partner_name": "",
    }
    keys = braze(connection("braze", host=HOST, password="rest-api-key ", extra=extra)).keys
    assert (keys.rest_api_key, keys.partner_api_key) == ("rest-api-key", "partner-api-key")
    assert (keys.data_import_key, keys.partner_name) == ("data-import-key", "heap")


def test_limits_are_brazes_own_unless_the_connection_says_otherwise(connection):
    assert braze(connection("braze", host=HOST)).limits == BrazeLimits()
    extra = {
        "cohort_requests_per_hour": 100_000,
        "track_requests_per_3_seconds": "1500",
        "pool_requests_per_hour": 10_000,
        "attributes_per_request": 50,
    }
    assert braze(connection("braze", host=HOST, extra=extra)).limits == BrazeLimits(
        cohort=Limit(100_000, 3600.0),
        track=Limit(1500, 3.0),
        pool=Limit(10_000, 3600.0),
        attributes_per_request=50,
    )


def test_the_session_has_the_connections_transport_settings_and_nothing_else(connection):
    settings = {
        "verify": "/etc/ssl/own-ca.pem",
        "cert": "/etc/ssl/client.pem",
        "proxies": {"https": "http://proxy.example:3128"},
        "trust_env": False,
    }
    extra = {**settings, "partner_api_key": "partner-api-key", "data_import_key": "data-import-key"}
    conn_id = connection("braze", host=HOST, login="somebody", password="rest-api-key", extra=extra)
    session = open_transport(BaseHook.get_connection(conn_id), HOST)._session
    assert {name: getattr(session, name) for name in settings} == settings
    assert session.headers == default_headers()
    assert session.auth is None


def test_every_secret_is_masked_in_logs(connection, monkeypatch):
    # Airflow's own masking, by the names of extras, must not hide that ours is missing.
    monkeypatch.setattr(_secrets_masker(), "sensitive_variables_fields", [])
    secrets = {"partner_api_key": "masked-partner-key", "data_import_key": "masked-import-key"}
    braze(connection("braze", host=HOST, password="masked-rest-key", extra=secrets))
    HeapHook(
        connection("heap", login="1", password="masked-heap-key", extra={"webhook_secret": "masked-webhook"})
    ).get_conn()
    line = f"masked-rest-key {' '.join(secrets.values())} masked-heap-key masked-webhook"
    assert redact(line) == "*** *** *** *** ***"


@pytest.mark.parametrize("protocol", ["nosuch", "snowflake"])
def test_a_location_of_no_storage_that_airflow_knows(protocol):
    with pytest.raises(
        ConfigurationError, match=rf"no storage for {protocol}://.*Nothing was sent"
    ) as raised:
        path_of(f"{protocol}://bucket/private-person")
    assert "private-person" not in str(raised.value)
