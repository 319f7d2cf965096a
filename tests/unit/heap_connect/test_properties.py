"""Random dumps, beside a model that reads them in plain loops."""

from __future__ import annotations

import tempfile
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.heap_connect.dumping import dumps_in

IDS = st.integers(1, 7)
SECONDS = 1767261600
MODIFIED = {None: None, "0": 0}
# The same two moments in every form.
for moment in (SECONDS, SECONDS + 60):
    MODIFIED |= {str(moment): moment, str(moment * 1000): moment, str(moment * 1000000): moment}
MODIFIED["2026-01-01T11:00:00+01:00"] = SECONDS

USERS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": IDS,
            "plan": st.sampled_from([None, "a", "b", "c"]),
            "joindate": st.sampled_from(list(MODIFIED)),
            "last_modified": st.sampled_from(list(MODIFIED)),
        },
        optional={"age": st.one_of(st.none(), st.integers(0, 3))},
    ),
    max_size=4,
)
EVENTS = st.lists(
    st.fixed_dictionaries(
        {"event_id": st.one_of(st.none(), IDS), "user_id": st.one_of(st.none(), IDS), "page": IDS}
    ),
    max_size=4,
)
MOVES = st.lists(
    st.builds(lambda source, target: {"from_user_id": source, "to_user_id": target, "time": 0}, IDS, IDS),
    max_size=7,
    unique_by=lambda move: move["from_user_id"],
)
PARTS = {
    "users": st.lists(USERS, min_size=1, max_size=3),
    "pageviews": st.lists(EVENTS, min_size=1, max_size=3),
}
DUMP = st.fixed_dictionaries(
    {},
    optional={
        "users": st.tuples(st.booleans(), PARTS["users"]),
        "pageviews": st.tuples(st.booleans(), PARTS["pageviews"]),
        "user_migrations": MOVES,
    },
)
FIRST = st.fixed_dictionaries(
    {
        "users": st.tuples(st.just(False), PARTS["users"]),
        "pageviews": st.tuples(st.just(False), PARTS["pageviews"]),
    },
    optional={"user_migrations": MOVES},
)
TYPES = {
    "users": {
        "user_id": "long",
        "plan": "string",
        "joindate": "string",
        "last_modified": "string",
        "age": "long",
    },
    "pageviews": {"event_id": "long", "user_id": "long", "page": "long"},
    "user_migrations": {"from_user_id": "long", "to_user_id": "long", "time": "long"},
}


def content(dumps, table):
    rows = []
    for dump in dumps:
        if table in dump:
            incremental, parts = dump[table]
            rows = (rows if incremental else []) + [row for part in parts for row in part]
    return rows


def final(user_id, moves):
    seen = []
    while user_id in moves and user_id not in seen:
        seen.append(user_id)
        user_id = moves[user_id]
    return min(seen[seen.index(user_id) :]) if user_id in seen else user_id


def moment_of(text):
    return MODIFIED[text] or None


def model(dumps):
    moves = {}
    for dump in dumps:
        if "user_migrations" in dump:
            moves = {move["from_user_id"]: move["to_user_id"] for move in dump["user_migrations"]}
    newest = {}
    for row in content(dumps, "users"):
        other = newest.get(row["user_id"])
        if other is None or (moment_of(row["last_modified"]) or 0) >= (
            moment_of(other["last_modified"]) or 0
        ):
            newest[row["user_id"]] = row
    merged = {}
    for user_id, row in newest.items():
        merged.setdefault(final(user_id, moves), []).append(row)

    def best(rows, name, choose, read=lambda value: value):
        return choose((read(row.get(name)) for row in rows if read(row.get(name)) is not None), default=None)

    users = [
        (
            user_id,
            best(rows, "plan", max),
            best(rows, "joindate", min, moment_of),
            best(rows, "last_modified", max, moment_of),
            best(rows, "age", max),
        )
        for user_id, rows in merged.items()
    ]
    once, events = {}, []
    for row in content(dumps, "pageviews"):
        found = (row["event_id"], final(row["user_id"], moves), row["page"])
        if row["event_id"] is None:
            events.append(found)
        else:
            once[row["event_id"]] = found
    return users, [*events, *once.values()]


def write(dumps, folder):
    written = dumps_in(folder)
    for dump_id, dump in enumerate(dumps, 8):  # the third has two digits
        types = dict(TYPES)
        if not any("age" in row for part in dump.get("users", (False, []))[1] for row in part):
            types["users"] = {name: kind for name, kind in TYPES["users"].items() if name != "age"}
        tables = {name: rows if name == "user_migrations" else rows[1] for name, rows in dump.items()}
        incremental = {name for name in ("users", "pageviews") if name in dump and dump[name][0]}
        written.add(dump_id, tables, incremental, types)
    return written


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.tuples(FIRST, DUMP, DUMP))
def test_users_and_events_are_those_of_the_model(dumps):
    users, events = model(dumps)
    columns = ["user_id", "plan", "joined", "modified", "age"]
    if not any("age" in row for row in content(dumps, "users")):
        columns.pop()
    sql = "SELECT *, epoch(joindate) AS joined, epoch(last_modified) AS modified FROM users"
    with tempfile.TemporaryDirectory() as folder:
        written = write(dumps, folder)
        assert Counter(written.find(sql, *columns)) == Counter(user[: len(columns)] for user in users)
        assert Counter(written.find("FROM pageviews", "event_id", "user_id", "page")) == Counter(events)
