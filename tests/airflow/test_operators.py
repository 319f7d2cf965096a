"""Operators as Airflow calls them, against the sandbox."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
)
from airflow.sdk import Asset, AssetAlias

from airflow_provider_heapbraze.clients.errors import ConfigurationError, ServerError
from airflow_provider_heapbraze.locations import ledger_root
from airflow_provider_heapbraze.members import FileMembers, Guards, IdentityMapping, SqlMembers
from airflow_provider_heapbraze.operators._airflow import OUT_OF_TIME, airflow_errors, run_id
from airflow_provider_heapbraze.operators.cohort import BrazeCohortImportOperator
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator
from tests.airflow.cohorts import COHORT, PEOPLE, context, glance


def test_what_the_tasks_return(pipeline, sandbox):
    matched = pipeline.match([*PEOPLE[:10], PEOPLE[0], " "])
    assert set(matched) == {"uri", "fingerprint", "taken_at", "counts", "engine", "sources"}
    assert matched["counts"] == {
        "members": 12,
        "matched": 10,
        "external_id": 10,
        "alias": 0,
        "device_id": 0,
        "duplicates": 1,
        "unmatched": {"blank": 1},
    }
    planned = pipeline.plan(PEOPLE[:10])
    assert {name: planned[name] for name in ("adds", "removes", "unchanged", "requests", "breaches")} == {
        "adds": 10,
        "removes": 0,
        "unchanged": 0,
        "requests": 2,
        "breaches": [],
    }
    assert set(planned) - {"adds", "removes", "unchanged", "requests", "breaches"} == {
        "uri",
        "plan_id",
        "name",
        "change",
        "seconds_at_limit",
        "engine",
        "sources",
    }
    assert sandbox.requests() == [], "a plan sends nothing"
    imported = pipeline.run(PEOPLE[:10])
    assert set(imported) == {
        "run_id",
        "adds",
        "removes",
        "acknowledged",
        "rejected",
        "requests",
        "size",
        "report_uri",
        "waterfall",
    }
    assert (imported["adds"], imported["acknowledged"], imported["size"]) == (10, 10, 10)
    assert "private-person" not in json.dumps([matched, planned, imported])


def test_a_plan_is_carried_out(pipeline, sandbox):
    plan = pipeline.plan(PEOPLE[:10])
    assert pipeline.run(plan=plan)["acknowledged"] == 10
    assert set(sandbox.cohort("cohort-1")["members"]) == set(PEOPLE[:10])
    stale = pipeline.plan(PEOPLE[:20])
    pipeline.run(PEOPLE[:12], context("somebody else"))
    with pytest.raises(AirflowFailException, match="out of date"):
        pipeline.run(plan=stale)


def test_the_guards_of_the_import_decide_over_a_plan(pipeline, sandbox):
    pipeline.run(PEOPLE)
    plan = pipeline.plan(PEOPLE[:50])
    assert [breach["guard"] for breach in plan["breaches"]] == ["max_removed_share"]
    with pytest.raises(AirflowFailException, match="max_removed_share"):
        pipeline.run(plan=plan)
    pipeline.run(plan=plan, guards=Guards(max_removed_share=0.5))
    assert len(sandbox.cohort("cohort-1")["members"]) == 50


def test_an_id_is_the_same_everywhere(pipeline, sandbox):
    """A template often ends in a line break, and YAML takes an id of digits for a number."""
    arguments = {"match": pipeline.match(PEOPLE), "ledger": pipeline.ledger, "cohort_name": "One"}
    for cohort_id in ("20240101\n", 20240101):
        BrazeCohortImportOperator(task_id="import", cohort_id=cohort_id, **arguments).execute(context())
    assert len(sandbox.cohort("20240101")["members"]) == 100
    assert len(sandbox.requests()) == 2


def test_a_kill_while_planning_is_heeded(pipeline, sandbox):
    operator = BrazeCohortImportOperator(
        task_id="import", **COHORT, match=pipeline.match(PEOPLE), ledger=pipeline.ledger
    )
    night = context()

    class Killed:
        """Airflow's signal handler only calls on_kill(); here it comes when the run is asked for its time."""

        @property
        def run_after(self):
            operator.on_kill()
            return datetime(2026, 11, 24, tzinfo=UTC)

    night["dag_run"] = Killed()
    with pytest.raises(AirflowException):
        operator.execute(night)
    assert sandbox.requests() == []


def test_a_breached_guard_fails_without_retries_or_skips(pipeline, sandbox):
    pipeline.run(PEOPLE)
    seen = len(sandbox.requests())
    assert [b["guard"] for b in pipeline.plan(PEOPLE[:50])["breaches"]] == ["max_removed_share"]
    with pytest.raises(AirflowFailException, match=r"max_removed_share=0\.5"):
        pipeline.run(PEOPLE[:50], context("night-2"))
    with pytest.raises(AirflowSkipException, match="Nothing was sent"):
        pipeline.run(PEOPLE[:50], context("night-2"), on_breach="skip")
    assert len(sandbox.requests()) == seen
    pipeline.run(PEOPLE[:50], context("night-2"), guards=Guards(max_removed_share=0.5))
    assert len(sandbox.cohort("cohort-1")["members"]) == 50


def test_attribute_delivery(pipeline, sandbox):
    result = pipeline.run(PEOPLE, delivery="attribute", attribute="in_cohort_one")
    assert result["requests"] == 2
    assert set(sandbox.attribute("in_cohort_one")["true"]) == set(PEOPLE)
    assert sandbox.state()["cohorts"] == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "either match or plan"),
        ({"match": {"wrong": 1}}, "return value of its task"),
        ({"match": "{'uri': 'rendered as text'}"}, "render_template_as_native_obj"),
        ({"on_breach": "Skip"}, "on_breach must be"),
        ({"force_full": "1"}, "force_full must be"),
        ({"guards": Guards(max_removed_share=20)}, "from 0 to 1"),
        ({"delivery": "pigeon"}, "delivery must be one of"),
        ({"delivery": "attribute"}, "attribute is empty"),
        ({"delivery": "attribute", "attribute": "external_id"}, "attribute"),
        ({"delivery": "attribute", "attribute": "with space"}, "attribute"),
        ({"delivery": "attribute", "attribute": "a" * 256}, "attribute"),
        ({"cohort_id": " "}, "cohort_id is empty"),
        ({"cohort_name": ""}, "cohort_name is empty"),
        ({"guards": Guards(max_removed_share="a lot")}, "max_removed_share"),
    ],
)
def test_bad_arguments_are_said_before_anything_is_sent(pipeline, sandbox, arguments, says):
    given = {**COHORT, "ledger": pipeline.ledger, **arguments}
    if says != "either match or plan":
        given.setdefault("match", pipeline.match(PEOPLE))
    with pytest.raises(AirflowFailException, match=says) as caught:
        BrazeCohortImportOperator(task_id="import", **given).execute(context())
    assert "othing was sent" in str(caught.value)
    assert sandbox.requests() == []


def test_a_wrong_key_is_no_secret_in_the_error(pipeline, sandbox):
    sandbox.settings(data_import_key="another-data-import-key")
    with pytest.raises(AirflowFailException, match="data_import_key") as caught:
        pipeline.run(PEOPLE)
    error = caught.value
    while error:
        assert "sandbox-" not in repr(error)
        assert "private-person" not in repr(error)
        error = error.__cause__ or error.__context__


def test_transient_errors_are_left_to_airflows_retries():
    with pytest.raises(AirflowException) as caught, airflow_errors():
        raise ServerError("Braze failed.")
    assert not isinstance(caught.value, AirflowFailException)
    with pytest.raises(AirflowFailException), airflow_errors():
        raise ConfigurationError("Look at the DAG.")


def test_errors_lead_to_their_section_of_the_runbook():
    """That every error has one is asked in tests/unit/test_docs.py."""
    with pytest.raises(AirflowFailException) as caught, airflow_errors():
        raise ConfigurationError("Look at the DAG.")
    said, link = str(caught.value).splitlines()
    assert said == "Look at the DAG."
    assert link.endswith("/docs/runbook.md#configurationerror")
    headings = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text().lower().splitlines()
    assert f"### {OUT_OF_TIME.replace('-', ' ')}" in headings


def test_assets(pipeline):
    alias, asset = AssetAlias("cohorts"), Asset(name="one", uri="braze://cohort/cohort-1")
    other, night = Asset("other"), context()
    pipeline.run(PEOPLE, night, outlets=[alias, asset, other])
    events = night["outlet_events"]
    ((added, extra),) = events[alias].events
    assert added.uri == "braze://cohort/cohort-1"
    assert extra == events[asset].extra == {"size": 100, "adds": 100, "removes": 0}
    assert other.name not in events.by_name


def test_a_run_is_named_after_its_place_in_airflow():
    assert run_id(context("night-1")) == "cohorts/night-1/import"
    assert run_id(context("night-1", map_index=3)) == "cohorts/night-1/import/3"


def test_members_of_a_database(sandbox, tmp_path, monkeypatch):
    database = tmp_path / "warehouse.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE members (identity TEXT, device TEXT)")
        rows = [(f"person-{number}", None) for number in range(120_000)]
        connection.executemany("INSERT INTO members VALUES (?, ?)", [*rows, (None, "phone")])
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(database)}))
    result = match_sql("warehouse", "SELECT * FROM members", tmp_path)
    assert result["counts"]["external_id"] == 120_000
    assert result["counts"]["device_id"] == 1
    with pytest.raises(AirflowFailException, match="must be a SELECT"):
        match_sql("warehouse", "UPDATE members SET identity = identity", tmp_path)
    with pytest.raises(AirflowFailException, match="is no database"):
        match_sql("braze_default", "SELECT 1", tmp_path)


def match_sql(conn_id, sql, folder):
    operator = HeapUserMatchOperator(
        task_id="match",
        members=SqlMembers(conn_id, sql),
        mapping=IdentityMapping(device_id="device"),
        ledger=(folder / "ledger").as_uri(),
    )
    return operator.execute(context())


def test_mapped_tasks_in_one_process_render_members_of_their_own():
    """``dag.test()`` runs mapped tasks in one process, where they share the object in the DAG."""
    shared = FileMembers("{{ segment }}.csv")
    first, second = (HeapUserMatchOperator(task_id="match", members=shared) for _ in range(2))
    first.members = second.members = shared
    for operator, segment in ((first, "one"), (second, "two")):
        operator.render_template_fields({"segment": segment})
    assert (first.members.path, second.members.path) == ("one.csv", "two.csv")
    assert shared.path == "{{ segment }}.csv"


def test_the_ledger_is_where_airflow_says(monkeypatch, tmp_path):
    assert ledger_root(None).name == "heapbraze-ledger"
    monkeypatch.setenv("AIRFLOW__HEAPBRAZE__LEDGER", f"file://{tmp_path}/of the config")
    assert ledger_root(None).name == "of the config"
    assert ledger_root(f"file://{tmp_path}/of the task").name == "of the task"


def test_a_run_says_how_its_cohort_is_for_the_overview(pipeline):
    """A plan that was only made, and one that a guard stopped, are said, too."""
    pipeline.run(PEOPLE)
    said = glance(pipeline.ledger)
    assert (said["state"], said["size"], said["waiting"]) == ("whole", 100, None)
    pipeline.plan(PEOPLE[:90])
    assert glance(pipeline.ledger)["waiting"]["run_id"] == "cohorts/night-1/import"
    with pytest.raises(AirflowFailException, match="A guard stopped"):
        pipeline.run(PEOPLE[:9], context("night-2"))
    assert glance(pipeline.ledger)["waiting"]["run_id"] == "cohorts/night-2/import"
    pipeline.run(PEOPLE[:90], context("night-3"))
    said = glance(pipeline.ledger)
    assert (said["size"], said["removes"], said["waiting"]) == (90, 10, None)
