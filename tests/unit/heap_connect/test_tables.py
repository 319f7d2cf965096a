"""What a table of the dumps holds, sentence by sentence."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
from upath import UPath

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from tests.unit.heap_connect.dumping import MICROS, MILLIS, Dumps, dumps_in

ALL_USERS = "SELECT user_id, plan FROM users"
NOW = datetime.now(UTC).replace(microsecond=0)


def user(user_id, plan, **more):
    return {"user_id": user_id, "plan": plan, **more}


@pytest.fixture
def dumps(tmp_path):
    return dumps_in(tmp_path)


def test_who_began_checkout_and_did_not_buy_in_30_days(dumps):
    def at(days):
        return int((NOW - timedelta(days=days)).timestamp() * 1000)

    dumps.add(
        7,
        {
            "users": [{"user_id": n, "identity": f"user-{n}"} for n in range(1, 6)],
            "begin_checkout": [
                {"event_id": 1, "user_id": 1, "time": at(2)},
                {"event_id": 2, "user_id": 2, "time": at(3)},  # bought
                {"event_id": 3, "user_id": 3, "time": at(31)},  # too long ago
                {"event_id": 4, "user_id": 44, "time": at(1)},  # is user 4 now
                {"event_id": 5, "user_id": 5, "time": at(1)},  # bought before that
            ],
            "purchase": [
                {"event_id": 6, "user_id": 2, "time": at(1)},
                {"event_id": 7, "user_id": 5, "time": at(40)},
            ],
            "user_migrations": [{"from_user_id": 44, "to_user_id": 4, "time": 0}],
        },
    )
    sql = """
        SELECT identity FROM users
        WHERE user_id IN (SELECT user_id FROM begin_checkout WHERE time > now() - INTERVAL 30 DAY)
        AND user_id NOT IN (SELECT user_id FROM purchase WHERE time > now() - INTERVAL 30 DAY)
    """
    assert dumps.find(sql, "identity") == [("user-1",), ("user-4",), ("user-5",)]


def test_the_newest_full_dump_and_every_later_incremental_one_by_number(dumps):
    dumps.add(8, {"users": [user(1, "old"), user(2, "gone")]})
    dumps.add(9, {"users": [user(1, "nine"), user(3, "nine")]})
    dumps.add(10, {"users": [user(1, "ten")]}, incremental=["users"])
    dumps.add(100, {"users": [user(4, "hundred")]}, incremental=["users"])
    assert dumps.find(ALL_USERS, "user_id", "plan") == [(1, "ten"), (3, "nine"), (4, "hundred")]


def test_files_of_older_dumps_are_not_read(dumps):
    dumps.add(1, {"users": [user(1, "old")]}).add(2, {"users": [user(2, "new")]})
    dumps.file(1, "users").unlink()
    assert dumps.find(ALL_USERS, "user_id") == [(2,)]


def test_later_parts_and_rows_win_by_number(dumps):
    parts = [[user(1, f"part {number}")] for number in range(11)]
    dumps.add(1, {"users": [*parts, [user(2, "first"), user(2, "second")]]})
    assert dumps.find(ALL_USERS, "user_id", "plan") == [(1, "part 10"), (2, "second")]


def test_the_newest_last_modified_wins_over_a_later_dump(dumps):
    dumps.add(1, {"users": [user(1, "newer", last_modified=200), user(2, "old", last_modified=None)]})
    dumps.add(2, {"users": [user(1, "older", last_modified=100), user(2, "new", last_modified=5)]}, ["users"])
    assert dumps.find(ALL_USERS, "user_id", "plan") == [(1, "newer"), (2, "new")]


def test_a_table_may_be_missing_from_a_dump(dumps):
    dumps.add(1, {"users": [user(1, "a")], "purchase": [{"event_id": 1, "user_id": 1}]})
    dumps.add(2, {"users": [user(2, "b")]})
    assert dumps.find("SELECT user_id FROM purchase", "user_id") == [(1,)]


def test_a_table_that_was_never_dumped_in_full(dumps):
    dumps.add(1, {"users": [user(1, "a")]}, incremental=["users"])
    with pytest.raises(ConfigurationError, match=r"has the table users in full.*Nothing was sent\."):
        dumps.find(ALL_USERS, "user_id")


def test_a_table_that_is_not_there(dumps):
    dumps.add(1, {"users": [user(1, "a")], "_event_metadata": [], "Purchase": []})
    with pytest.raises(ConfigurationError, match=r"has the table sales.*Its tables: Purchase, users\."):
        dumps.find("SELECT user_id FROM sales", "user_id")


def test_no_dump(dumps):
    with pytest.raises(ConfigurationError, match="There is no dump"):
        dumps.find(ALL_USERS, "user_id")


def test_columns_that_appear_are_null_before(dumps):
    dumps.add(1, {"users": [{"user_id": 1}]})
    dumps.add(2, {"users": [user(2, "new")]}, incremental=["users"])
    assert dumps.find(ALL_USERS, "user_id", "plan") == [(1, None), (2, "new")]


def test_a_column_whose_type_changes(dumps):
    big = 2**53 + 1
    dumps.add(1, {"users": [{"user_id": 1, "plan": big, "score": 1}]})
    dumps.add(2, {"users": [{"user_id": 2, "plan": "text", "score": 0.5}]}, incremental=["users"])
    sql = "SELECT user_id, plan, score FROM users"
    assert dumps.find(sql, "user_id", "plan", "score") == [(1, str(big), 1.0), (2, "text", 0.5)]


def test_a_column_that_no_file_has(dumps):
    dumps.add(1, {"users": [{"user_id": 1, "identity": "ann", "email": "x"}]})
    with pytest.raises(
        ConfigurationError, match=r"(?s)\"plan\".*Columns of users: user_id, identity, email\."
    ):
        dumps.find(ALL_USERS, "user_id")


def test_an_event_counts_once_and_its_newest_row_wins(dumps):
    event = {"event_id": 1, "user_id": 1, "page": "old"}
    without = {"event_id": None, "user_id": 3, "page": "x"}
    dumps.add(1, {"pageviews": [event, without, without]})
    dumps.add(
        2, {"pageviews": [{**event, "page": "new"}, {**event, "event_id": 2}]}, incremental=["pageviews"]
    )
    found = dumps.find("SELECT event_id, page FROM pageviews", "event_id", "page")
    assert found == [(1, "new"), (2, "old"), (None, "x"), (None, "x")]


def test_rows_without_event_ids_all_count(dumps):
    dumps.add(1, {"sessions": [{"session_id": 1, "user_id": 1}] * 2})
    assert dumps.find("SELECT session_id FROM sessions", "session_id") == [(1,), (1,)]


def test_users_who_moved_are_merged(dumps):
    rows = [
        user(1, "a", joindate="2026-01-02T00:00:00Z", last_modified=1767400000, age=30),
        user(2, "c", joindate="2026-01-01 00:00:00", last_modified=1767300000, age=None),
        user(3, "b", joindate=None, last_modified=None, age=31),
        user(9, "z", joindate=None, last_modified=None, age=1),
    ]
    moves = [{"from_user_id": n, "to_user_id": to, "time": 0} for n, to in [(1, 5), (2, 5), (3, 5)]]
    dumps.add(1, {"users": rows, "user_migrations": moves})
    sql = "SELECT user_id, plan, joindate, epoch(last_modified) AS modified, age FROM users"
    assert dumps.find(sql, "user_id", "plan", "joindate", "modified", "age") == [
        (5, "c", datetime(2026, 1, 1), 1767400000.0, 31),  # noqa: DTZ001 - DuckDB's TIMESTAMP has no zone
        (9, "z", None, None, 1),
    ]


def test_chains_are_followed_and_cycles_survive(dumps):
    moves = {1: 2, 2: 3, 3: 4, 10: 12, 12: 11, 11: 10, 5: 11, 6: 6, 7: None}
    dumps.add(
        1,
        {
            "pageviews": [{"event_id": n, "user_id": n} for n in [*range(1, 8), 10, 11, 12]],
            "user_migrations": [{"from_user_id": n, "to_user_id": to, "time": 0} for n, to in moves.items()],
        },
    )
    assert dict(dumps.find("SELECT event_id, user_id FROM pageviews", "event_id", "user_id")) == {
        1: 4,
        2: 4,
        3: 4,
        4: 4,
        5: 10,
        10: 10,
        11: 10,
        12: 10,
        6: 6,
        7: 7,
    }


def test_the_migrations_are_a_table_too(dumps):
    dumps.add(1, {"user_migrations": [{"from_user_id": 1, "to_user_id": 2, "time": 0}]})
    assert dumps.find("FROM user_migrations", "from_user_id", "to_user_id", "time") == [(1, 2, None)]


TIME = datetime(2026, 1, 1, 10, 0, 0, 250_000)  # noqa: DTZ001 - DuckDB's TIMESTAMP has no zone
SECONDS = 1767261600


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (SECONDS, "long", TIME.replace(microsecond=0)),
        (SECONDS, "int", TIME.replace(microsecond=0)),
        (SECONDS + 0.25, "double", TIME),
        (SECONDS * 1000 + 250, "long", TIME),
        (SECONDS * 1000000 + 250_000, "long", TIME),
        (SECONDS * 10**9 + 250_000_999, "long", TIME),
        (SECONDS * 1e9, "double", TIME.replace(microsecond=0)),
        (str(SECONDS * 10**9 + 250_000_000), "string", TIME),
        (str(SECONDS * 1000 + 250), "string", TIME),
        (f"{SECONDS}.25", "string", TIME),
        ("2026-01-01 10:00:00.25", "string", TIME),
        ("2026-01-01T10:00:00.25Z", "string", TIME),
        (" 2026-01-01T12:00:00.25+02:00", "string", TIME),
        ("2026-01-01", "string", datetime(2026, 1, 1)),  # noqa: DTZ001
        (TIME.replace(tzinfo=UTC), MILLIS, TIME),
        (TIME.replace(tzinfo=UTC), MICROS, TIME),
        (TIME, {"type": "long", "logicalType": "local-timestamp-micros"}, TIME),
        *[(value, "long", None) for value in (0, -1, 2**63 - 1, -(2**63), None)],
        *[(value, "double", None) for value in (0.0, float("nan"), float("inf"))],
        *[(value, "string", None) for value in ("0", "", "soon", "infinity", "9" * 30)],
        (datetime(1970, 1, 1, tzinfo=UTC), MILLIS, None),
        (True, "boolean", None),
        ("1970-01-01T00:00:00Z", "string", None),
    ],
)
def test_times_of_every_type_and_unit(dumps, value, kind, expected):
    dumps.add(1, {"users": [{"user_id": 1, "joindate": value}]}, types={"user_id": "long", "joindate": kind})
    dumps.add(2, {"users": [{"user_id": 2, "joindate": SECONDS}]}, ["users"])  # one that can be read
    assert dumps.find("SELECT joindate FROM users WHERE user_id = 1", "joindate") == [(expected,)]


def times(dumps, *values, kind="string", table="users"):
    rows = [{"user_id": number, "event_id": number, "time": value} for number, value in enumerate(values)]
    return dumps.add(1, {table: rows}, types={"user_id": "long", "time": kind})


def test_times_that_cannot_be_read_are_counted(dumps, caplog):
    times(dumps, "2026-01-01", "soon", "31.12.2025", None, "", " ", "0", "0.0", "1970-01-01 00:00:00")
    dumps.find("SELECT user_id FROM users WHERE time < now()", "user_id")
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.getMessage() == ("Heap Connect: 2 of 3 times in users.time cannot be read, and are NULL")


@pytest.mark.parametrize("sql", ["SELECT user_id FROM purchase WHERE TIME < now()", "FROM purchase"])
@pytest.mark.parametrize(
    ("values", "kind"), [(["soon", "31.12.2025", ""], "string"), ([-5, 0, None], "long"), ([True], "boolean")]
)
def test_a_column_of_times_of_which_none_can_be_read_is_refused(dumps, sql, values, kind):
    times(dumps, *values, kind=kind, table="purchase")
    count = sum(bool(value) for value in values)
    with pytest.raises(
        ConfigurationError, match=rf"purchase\.time has {count} values, and not one"
    ) as caught:
        dumps.find(sql, "user_id")
    assert "Nothing was sent. Look at the column" in str(caught.value)
    assert "soon" not in str(caught.value)
    assert dumps.find("SELECT max(user_id) AS n FROM purchase", "n") == [(len(values) - 1,)]


@pytest.mark.parametrize(("values", "kind"), [([None, "", "0"], "string"), ([0, None], "long"), ([], "long")])
def test_a_column_of_times_may_have_none(dumps, values, kind, caplog):
    times(dumps, *values, kind=kind)
    assert dumps.find("SELECT user_id FROM users WHERE time IS NOT NULL", "user_id") == []
    assert "cannot be read" not in caplog.text


def test_times_of_a_table_that_the_query_does_not_name(dumps, caplog):
    times(dumps, "2026-01-01", table="purchase")
    dumps.add(2, {"user_migrations": [{"from_user_id": 7, "to_user_id": 8, "time": "soon"}]})
    assert dumps.find("SELECT user_id FROM purchase WHERE time < now()", "user_id") == [(0,)]
    assert "cannot be read" not in caplog.text


def test_times_are_counted_over_all_parts_of_their_column(dumps, caplog):
    dumps.add(1, {"purchase": [{"event_id": 1, "seen": "soon"}]})
    types = {"event_id": "long", "seen": MILLIS}
    dumps.add(2, {"purchase": [{"event_id": 2, "seen": TIME.replace(tzinfo=UTC)}]}, ["purchase"], types)
    dumps.add(3, {"purchase": [{"event_id": 3}]}, ["purchase"])
    assert len(dumps.find("SELECT seen FROM purchase", "seen")) == 3
    assert "1 of 2 times in purchase.seen" in caplog.text


def test_the_unit_of_a_time_may_change(dumps):
    dumps.add(1, {"purchase": [{"event_id": 1, "seen": SECONDS}]})
    types = {"event_id": "long", "seen": MILLIS}
    dumps.add(2, {"purchase": [{"event_id": 2, "seen": TIME.replace(tzinfo=UTC)}]}, ["purchase"], types)
    found = dumps.find("SELECT seen FROM purchase", "seen")
    assert found == [(TIME.replace(microsecond=0),), (TIME,)]


def test_ids_of_64_bits_are_exact(dumps):
    ids = [2**63 - 1, 2**53 + 1, -(2**63)]
    dumps.add(1, {"users": [user(n, "a") for n in ids]})
    dumps.add(2, {"users": [user(str(2**62 + 1), "a")]}, incremental=["users"])
    assert {n for (n,) in dumps.find(ALL_USERS, "user_id")} == {*ids, 2**62 + 1}


@pytest.mark.parametrize("user_id", [1.5, "1.5", "ann.secret@example.com", True])
def test_a_user_id_that_is_no_whole_number_is_refused(dumps, user_id):
    dumps.add(1, {"users": [user(user_id, "a")]})
    with pytest.raises(ConfigurationError, match=r"sync_1/users/part.*Nothing was sent\."):
        dumps.find(ALL_USERS, "user_id")


@pytest.mark.parametrize("parts", [[[]], [[], [], []]])
def test_a_table_without_rows(dumps, parts):
    types = {"user_id": "long", "plan": "string", "spent": "double", "joindate": MICROS, "known": "boolean"}
    dumps.add(1, {"users": parts}, types=types)
    sql = "SELECT user_id + 1 AS n, plan FROM users WHERE joindate < now() AND spent > 1 AND known"
    assert dumps.find(sql, "n", "plan") == []


def test_a_table_without_files_has_the_columns_of_its_manifest(dumps):
    names = ["user_id", "plan", "joindate"]
    dumps.manifest(1, [{"name": "users", "columns": names, "files": [], "incremental": False}])
    assert dumps.find("SELECT user_id FROM users WHERE plan = 'a' AND joindate < now()", "user_id") == []


def test_parts_with_and_without_rows(dumps):
    dumps.add(1, {"users": [[], [user(1, "a")], []]})
    assert dumps.find(ALL_USERS, "user_id", "plan") == [(1, "a")]


def test_in_an_object_store():
    dumps = Dumps(UPath("memory://heap-connect-test/dumps"))
    dumps.add(1, {"users": [user(1, "a")], "purchase": [{"event_id": 1, "user_id": 1}]})
    dumps.add(2, {"users": [user(2, "b")]}, incremental=["users"])
    assert dumps.find(ALL_USERS, "user_id", "plan") == [(1, "a"), (2, "b")]
    dumps.file(2, "users").unlink()
    with pytest.raises(ConfigurationError, match="is missing, which a manifest names"):
        dumps.find(ALL_USERS, "user_id")


def test_taken_at_is_when_the_newest_manifest_of_what_is_read_was_written(dumps):
    dumps.add(1, {"users": [user(1, "a")]}).add(2, {"purchase": [{"event_id": 1}]})
    for number, moment in [(1, 1767000000), (2, 1768000000)]:
        os.utime(dumps.root / "manifests" / f"sync_{number}.json", (moment, moment))
    dumps.find(ALL_USERS, "user_id")
    assert dumps.taken_at == datetime.fromtimestamp(1767000000, UTC)
