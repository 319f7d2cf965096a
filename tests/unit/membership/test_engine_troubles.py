"""What goes wrong around a warehouse: tables that are gone, others who are there, and moving."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError, TransientError
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.entries import Target, Unknown
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.membership.matching import match, match_folder
from airflow_provider_heapbraze.membership.members import SqlMembers
from airflow_provider_heapbraze.membership.planning import Request, make_plan
from airflow_provider_heapbraze.membership.spaces import Spaces
from airflow_provider_heapbraze.membership.warehouse import WarehouseSpace
from tests.unit.membership.databases import PostgresAccess, tables_of
from tests.unit.membership.engine_conformance import KINDS, MAPPING, SOME, STORY, Night, members, run
from tests.unit.membership.test_engine_postgres import elsewhere

__all__ = ["elsewhere"]  # the fixture

EVERYBODY = Night(SOME)
SCHEMA_OF_OTHERS = """
    CREATE SCHEMA heapbraze;
    CREATE TABLE heapbraze.work_20200101000000_aaaaaaaa_0_member (c0 text);
    DROP ROLE IF EXISTS analyst; CREATE ROLE analyst LOGIN;
    GRANT USAGE, CREATE ON SCHEMA heapbraze TO analyst;
    GRANT SELECT ON ALL TABLES IN SCHEMA heapbraze TO analyst;
    GRANT USAGE ON SCHEMA segments TO analyst;
"""


def next_plan(elsewhere, folder, engine, last=None, **how):
    """Plan for everybody once more."""
    root = folder / "ledger"
    matched = match(members(SOME, elsewhere, engine, folder), MAPPING, elsewhere.access, root, engine)
    target = Target("cohort", {"cohort_id": "told twice"})
    ledger = TargetLedger(root, target, Spaces(elsewhere.access, engine))
    request = Request(
        run_id="next",
        match=matched,
        match_folder=match_folder(root, matched.fingerprint),
        kinds=KINDS,
        name="Told twice",
        as_of="2026-12-01",
        **{"force_full": False, **how},
    )
    return make_plan(ledger, last or ledger.last(), request)


def test_a_cohort_moves_from_one_warehouse_to_another(elsewhere, tmp_path):
    nights = list(zip(STORY[:2], ("warehouse", "other"), strict=True))
    told = [
        run(night, number, tmp_path / "there", elsewhere, engine, tmp_path)
        for number, (night, engine) in enumerate(nights)
    ]
    here = [
        run(night, number, tmp_path / "here", elsewhere, "", tmp_path)
        for number, (night, _) in enumerate(nights)
    ]
    assert told == here


@pytest.mark.parametrize("engine", ["warehouse", ""])
def test_a_table_that_is_gone_is_damage(elsewhere, tmp_path, engine):
    run(EVERYBODY, 0, tmp_path / "ledger", elsewhere, "warehouse", tmp_path)
    for name in tables_of(elsewhere.server):
        if name.startswith("held"):
            elsewhere.server.execute(f'DROP TABLE heapbraze."{name}"')
    with pytest.raises(
        LedgerDamagedError,
        match=r"the table heapbraze.held_.* of connection 'warehouse', for which snapshots/.*Restore",
    ):
        next_plan(elsewhere, tmp_path, engine)
    assert next_plan(elsewhere, tmp_path, engine, force_full=True, goes_on=True).adds == len(SOME)


def test_recovery_where_a_draft_is_lost(elsewhere, tmp_path):
    for number in range(2):
        run(Night(SOME[number:]), number, tmp_path / "ledger", elsewhere, "warehouse", tmp_path)
    [first, _] = sorted((tmp_path / "ledger").glob("targets/*/plans/*/plan.json"))
    for file in (first, *(tmp_path / "ledger").glob("targets/*/log/*1.json")):
        file.write_bytes(b"{")
    plan = next_plan(elsewhere, tmp_path, "warehouse", Unknown(4), force_full=True, goes_on=True)
    assert (plan.adds, plan.recovery) == (len(SOME), {"plans": 2, "lost": 0})


def test_two_tasks_that_write_the_same_match(elsewhere, tmp_path, monkeypatch):
    table = elsewhere.table(SOME)
    kept = []

    def once():
        sql = f"SELECT * FROM {table}"
        return match(
            SqlMembers("warehouse", sql), MAPPING, elsewhere.access, tmp_path / "ledger", "warehouse"
        )

    def keep(space, name, path, keep=WarehouseSpace.keep):
        kept.append(name)
        if kept == ["identifiers", "others"]:
            once()  # from its beginning to its end, while the first one is half-way
        keep(space, name, path)

    monkeypatch.setattr(WarehouseSpace, "keep", keep)
    once()
    assert next_plan(elsewhere, tmp_path, "warehouse").adds == len(SOME)


def test_tables_that_cannot_be_dropped_are_named_and_no_others(elsewhere, tmp_path, monkeypatch, caplog):
    def refuse(_, table):
        raise TransientError("lost")

    with monkeypatch.context() as lost:
        lost.setattr(WarehouseSpace, "_drop", refuse)
        run(EVERYBODY, 0, tmp_path / "ledger", elsewhere, "warehouse", tmp_path)
    warnings = [record for record in caplog.records if "cannot be dropped now" in record.getMessage()]
    named = {name for record in warnings for name in record.args[2].split(", ")}
    assert named < {*tables_of(elsewhere.server)}
    assert {name for name in tables_of(elsewhere.server) if name.startswith("work_")} <= named
    for name in named:
        elsewhere.server.execute(f'DROP TABLE heapbraze."{name}"')
    assert next_plan(elsewhere, tmp_path, "warehouse").adds == 0


def test_the_schema_is_made_by_several_at_once(elsewhere, tmp_path, postgres):
    table, failed, gate = elsewhere.table(SOME), [], threading.Barrier(4)
    postgres.execute("DROP SCHEMA IF EXISTS heapbraze CASCADE")

    def one(number):
        gate.wait()
        try:
            members = SqlMembers("warehouse", f"SELECT * FROM {table}")
            match(members, MAPPING, elsewhere.access, tmp_path / str(number), "warehouse")
        except Exception as error:  # noqa: BLE001 - in a thread
            failed.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_what_another_user_left_is_left(elsewhere, tmp_path, postgres):
    postgres.execute(SCHEMA_OF_OTHERS)
    table = elsewhere.table(SOME)
    postgres.execute(f"GRANT SELECT ON {table} TO analyst")
    try:
        access = PostgresAccess(postgres, "analyst")
        found = match(
            SqlMembers("warehouse", f"SELECT * FROM {table}"), MAPPING, access, tmp_path, "warehouse"
        )
        assert found.counts["members"] == len(SOME)
        assert "work_20200101000000_aaaaaaaa_0_member" in tables_of(postgres)
    finally:
        postgres.execute("DROP OWNED BY analyst; DROP ROLE analyst; DROP SCHEMA heapbraze CASCADE")


def test_who_is_the_same_to_a_collation_is_not_the_same(elsewhere, tmp_path, postgres):
    postgres.execute(
        "CREATE COLLATION segments.no_case (provider = icu, locale = 'und-u-ks-level2', "
        "deterministic = false);"
        'CREATE TABLE segments.cases (identity text COLLATE segments.no_case, email text COLLATE "POSIX");'
        "INSERT INTO segments.cases VALUES ('Ann', 'a'), ('ann', 'b'), ('ANN', 'c')"
    )
    members = SqlMembers("warehouse", "SELECT * FROM segments.cases")
    mapping = IdentityMapping("identity", "email", "email")
    found = match(members, mapping, elsewhere.access, tmp_path, "warehouse")
    assert (found.counts["matched"], found.counts["duplicates"]) == (3, 0)


@pytest.mark.parametrize("kind", ["tsvector", "xid", "pg_lsn"])
def test_a_type_that_nobody_knows_is_refused(elsewhere, tmp_path, kind):
    sql = f"SELECT CAST(NULL AS {kind}) AS identity FROM {elsewhere.table([])}"
    with pytest.raises(ConfigurationError, match="Cast it to text"):
        match(SqlMembers("warehouse", sql), IdentityMapping(), elsewhere.access, tmp_path, "warehouse")
