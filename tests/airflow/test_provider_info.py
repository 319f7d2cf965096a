from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
from airflow.configuration import conf
from airflow.providers_manager import ProvidersManager
from airflow.sdk import Asset

from airflow_provider_heapbraze import __version__
from airflow_provider_heapbraze.get_provider_info import get_provider_info
from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.hooks.heap import HeapHook

PROJECT = Path(__file__).resolve().parents[2]
INFO = get_provider_info()
CONNECTION_TYPES = {entry["connection-type"]: entry for entry in INFO["connection-types"]}


def airflow_schema(name):
    return json.loads(files("airflow").joinpath(name).read_text())


def test_airflow_accepts_the_metadata():
    jsonschema.validate(INFO, airflow_schema("provider_info.schema.json"))


@pytest.mark.parametrize("conn_type", CONNECTION_TYPES)
def test_airflow_accepts_the_forms(conn_type):
    schema = airflow_schema("provider.yaml.schema.json")["properties"]["connection-types"]["items"]
    if "conn-fields" not in schema["properties"]:
        pytest.skip("this Airflow knows no forms in the metadata")
    jsonschema.validate(CONNECTION_TYPES[conn_type], {**schema, "additionalProperties": False})


def test_reading_the_metadata_imports_nothing_else_of_ours():
    script = (
        "import sys; from airflow_provider_heapbraze.get_provider_info import get_provider_info; "
        "get_provider_info(); print(sorted(m for m in sys.modules if m.startswith('airflow')))"
    )
    modules = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert modules.strip() == "['airflow_provider_heapbraze', 'airflow_provider_heapbraze.get_provider_info']"


@pytest.mark.parametrize(
    "module", [module for entry in INFO["operators"] + INFO["hooks"] for module in entry["python-modules"]]
)
def test_every_module_is_there(module):
    assert find_spec(module) is not None


def test_the_registry_is_told_of_every_class():
    told = yaml.safe_load((PROJECT / ".airflow-registry.yaml").read_text())
    assert told["package-name"] == INFO["package-name"]
    for kind in ("operators", "sensors", "triggers", "hooks"):
        modules = [import_module(name) for entry in INFO[kind] for name in entry["python-modules"]]
        ours = {
            f"{module.__name__}.{name}"
            for module in modules
            for name, value in vars(module).items()
            if name[0] != "_" and isinstance(value, type) and value.__module__ == module.__name__
        }
        suffix = ("Operator", "Sensor", "Trigger", "Hook")
        assert {entry["module"] for entry in told[kind]} == {one for one in ours if one.endswith(suffix)}
    assert [entry["module"] for entry in told["notifications"]] == INFO["notifications"]


@pytest.mark.parametrize("hook", [BrazeHook, HeapHook])
def test_the_metadata_says_what_the_hook_says(hook):
    entry = CONNECTION_TYPES[hook.conn_type]
    assert entry["hook-class-name"] == f"{hook.__module__}.{hook.__name__}"
    assert entry["hook-name"] == hook.hook_name


def test_the_installed_package_tells_airflow_where_to_look():
    found = [
        entry for entry in entry_points(group="apache_airflow_provider") if entry.name == "provider_info"
    ]
    ours = [entry for entry in found if entry.dist.name == "airflow-provider-heapbraze"]
    assert [entry.load() for entry in ours] == [get_provider_info]


def test_airflow_finds_the_provider():
    provider = ProvidersManager().providers["airflow-provider-heapbraze"]
    assert provider.version == __version__


def test_the_connection_forms_have_their_fields():
    forms = {form.connection_type: form for form in HookMetaService.hook_meta_data()}
    braze, heap = forms["braze"], forms["heap"]
    assert (braze.hook_name, heap.hook_name) == ("Braze", "Heap")
    if braze.standard_fields is None:
        pytest.skip("this Airflow knows no forms in the metadata: extras are typed as JSON")
    assert braze.standard_fields.password.title == "REST API key"
    assert braze.standard_fields.login.hidden
    assert heap.standard_fields.login.title == "App ID"
    assert list(braze.extra_fields) == [
        "instance",
        "partner_name",
        "partner_api_key",
        "data_import_key",
        "currents_token",
    ]
    assert list(heap.extra_fields) == ["region", "webhook_secret", "pii_salt"]
    hidden = {
        name
        for name, field in {**braze.extra_fields, **heap.extra_fields}.items()
        if field["schema"].get("format") == "password"
    }
    assert hidden == {
        "partner_api_key",
        "data_import_key",
        "currents_token",
        "webhook_secret",
        "pii_salt",
    }


def test_the_ledger_is_an_option_of_airflows_configuration(monkeypatch):
    ProvidersManager().initialize_providers_configuration()
    assert "ledger" in conf.get_options_including_defaults("heapbraze")
    assert conf.get("heapbraze", "ledger", fallback="") == ""
    monkeypatch.setenv("AIRFLOW__HEAPBRAZE__LEDGER", "s3://bucket/prefix")
    assert conf.get("heapbraze", "ledger") == "s3://bucket/prefix"


def test_a_braze_asset_keeps_its_uri():
    assert Asset("braze://cohort/power-users").uri == "braze://cohort/power-users"
