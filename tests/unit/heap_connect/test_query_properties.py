"""Random queries: what is left unread makes no difference to what they find."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from tests.unit.heap_connect.dumping import dumps_in

TABLES = {
    "users": [
        {"user_id": 1, "identity": "ann", "plan": "a", "page": 1},
        {"user_id": 2, "identity": "bob", "plan": "b", "page": None},
        {"user_id": 3, "identity": "cid", "plan": None, "page": 3},
    ],
    "purchase": [
        {"event_id": 1, "user_id": 1, "plan": "a", "amount": 10},
        {"event_id": 2, "user_id": 3, "plan": "b", "amount": None},
    ],
    "pageviews": [{"event_id": 3, "user_id": 1, "page": 1}, {"event_id": 4, "user_id": 2, "page": 3}],
}
NAMES = ["user_id", "identity", "plan", "amount", "page", "event_id"]
# Both tables of a NATURAL JOIN are needed with all their columns, and so, as it is, are all others.
EVERYTHING = "everything AS (SELECT 1 FROM users NATURAL JOIN purchase NATURAL JOIN pageviews)"

table = st.sampled_from(list(TABLES))
name = st.sampled_from(NAMES)


@st.composite
def selected(draw, relations):
    """What a SELECT may select from relations, which are all aliases."""
    relation = draw(st.sampled_from(relations))
    forms = [
        "*",
        f"{relation}.*",
        f"{relation}.{draw(name)}",
        draw(name),
        f"* EXCLUDE ({draw(name)})",
        f"COLUMNS('^{draw(name)[:2]}')",
        f"{relation}.* EXCLUDE ({draw(name)})",
        f"{relation}.user_id, count(*) OVER () AS n",
        f"{relation}",
        f"{relation}.user_id, (SELECT count({draw(name)}) FROM {draw(table)}) AS n",
        f"{relation}.user_id, (SELECT max(x) FROM (SELECT * FROM {draw(table)}) x(x)) AS n",
    ]
    return ", ".join(draw(st.lists(st.sampled_from(forms), min_size=1, max_size=2)))


@st.composite
def source(draw, alias, depth):
    kinds = [draw(table), f"(FROM {draw(table)})", "w"]
    if depth:
        kinds.append(f"({draw(query(depth - 1))})")
    names = draw(st.sampled_from(["", "", "", " (user_id, other)"]))
    return f"{draw(st.sampled_from(kinds))} {alias}{names}"


@st.composite
def query(draw, depth):
    relations = ["a", "b"][: draw(st.integers(1, 2))]
    text = f"SELECT {draw(selected(relations))} FROM {draw(source('a', depth))}"
    if len(relations) == 2:
        way = draw(st.sampled_from(["USING (user_id)", "ON a.user_id = b.user_id"]))
        text += f" LEFT JOIN {draw(source('b', depth))} {way}"
    conditions = [
        "",
        "",
        f" WHERE EXISTS (SELECT * FROM {draw(table)} e WHERE e.user_id = a.user_id)",
        f" WHERE a.user_id IN (SELECT user_id FROM {draw(table)} WHERE {draw(name)} IS NOT NULL)",
        f" WHERE a.user_id IN (SELECT COLUMNS('user_id') FROM {draw(table)})",
    ]
    text += draw(st.sampled_from(conditions))
    if draw(st.sampled_from([False, False, False, True])):
        text += f" UNION ALL BY NAME SELECT {draw(selected(['c']))} FROM {draw(source('c', 0))}"
    return text


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    return dumps_in(tmp_path_factory.mktemp("dumps")).add(1, TABLES)


def found(dumps, tables, sql):
    """Return all that a query gives, with the columns' names; or that it is refused."""
    try:
        return dumps.find(f"WITH {tables} SELECT r::VARCHAR AS row FROM ({sql}) r", "row")
    except ConfigurationError:
        return None


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(query(1), st.sampled_from(["user_id", "user_id, plan", "w.*"]), table)
def test_columns_that_are_not_read_are_not_needed(dumps, sql, chosen, named):
    w = f"w AS (SELECT {chosen} FROM {named} w)"
    assert found(dumps, w, sql) == found(dumps, f"{EVERYTHING}, {w}", sql)
