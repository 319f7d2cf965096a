"""What the user's query may do, what is read for it, and what its errors tell."""

from __future__ import annotations

import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.heap_connect.query import examine
from airflow_provider_heapbraze.members import HeapConnectMembers
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.matching import match
from airflow_provider_heapbraze.membership.tables import workspace
from tests.unit.heap_connect.dumping import MILLIS, dumps_in, write_part
from tests.unit.membership.members_conformance import Access

SECRET = "ann.secret@example.com"


@pytest.fixture
def dumps(tmp_path):
    return dumps_in(tmp_path).add(
        1,
        {
            "users": [
                {"user_id": 1, "identity": "ann", "email": SECRET, "age": 30},
                {"user_id": 2, "identity": "bob", "email": "b", "age": 40},
            ],
            "Begin Checkout": [{"event_id": 1, "user_id": 1, "cart": "full"}],
            "purchase": [{"event_id": 2, "user_id": 2, "cart": "full"}],
        },
    )


def refused(dumps, sql, *columns):
    """Return the message; nothing of what was read is in it, or in what it came from."""
    with pytest.raises(ConfigurationError, match=r"Nothing was sent\.") as caught:
        dumps.find(sql, *(columns or ["identity"]))
    error = caught.value
    while error is not None:  # what is left out of a traceback would still reach whoever logs errors whole
        assert SECRET not in str(error)
        error = error.__cause__ or error.__context__
    return str(caught.value)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM users",
        "FROM users",
        "SELECT u.* FROM users AS u",
        "SELECT * EXCLUDE (email) FROM users",
        "SELECT COLUMNS('^id') FROM users",
        "SELECT identity FROM users;",
        "SELECT identity FROM users; -- everybody",
        "SELECT identity FROM users -- everybody",
        "SELECT IDENTITY FROM Users",
        "SELECT identity FROM main.users",
        "WITH users AS (SELECT * FROM users) SELECT identity FROM users",
        "WITH everybody AS (SELECT identity FROM users) FROM everybody",
        "SELECT u.identity FROM users AS u (user_id, identity)",
        "SELECT #2 AS identity FROM users",
        "SELECT row.identity FROM (SELECT users AS row FROM users)",
        "SELECT identity FROM users NATURAL LEFT JOIN purchase",
        "SELECT identity FROM users UNION SELECT identity FROM users",
        "SELECT identity FROM users USING SAMPLE 100%",
        "SELECT identity FROM users, unnest([1]) GROUP BY ALL HAVING count(*) = 1",
    ],
)
def test_forms_of_a_query(dumps, sql):
    assert dumps.find(sql, "identity") == [("ann",), ("bob",)]


def test_tables_of_any_name(dumps):
    sql = 'SELECT identity FROM users WHERE EXISTS (FROM "begin checkout" b WHERE b.user_id = users.user_id)'
    assert dumps.find(sql, "identity") == [("ann",)]


def test_nobody_is_a_segment(dumps):
    assert dumps.find("SELECT identity FROM users WHERE user_id = 3", "identity") == []


def test_only_tables_that_are_named_are_read(dumps):
    dumps.file(1, "purchase").unlink()
    dumps.file(1, "Begin Checkout").write_bytes(b"no Avro")
    assert dumps.find("SELECT identity FROM users WHERE age < 35", "identity") == [("ann",)]


def test_only_columns_that_are_named_are_read(dumps):
    # polars would refuse a damaged text; a column that is not read is passed over.
    rows = [{"user_id": 1, "identity": "ann", "email": "hello world"}]
    types = {"user_id": "long", "identity": "string", "email": "string"}
    write_part(dumps.file(1, "users"), rows, types, codec="null")
    file = dumps.file(1, "users")
    file.write_bytes(file.read_bytes().replace(b"hello world", b"hello\xff\xfeorld"))
    assert dumps.find("SELECT identity FROM users", "identity") == [("ann",)]
    assert dumps.find("SELECT 'x' AS identity WHERE EXISTS (FROM users)", "identity") == [("x",)]
    assert "cannot be read" in refused(dumps, "SELECT identity FROM users WHERE email <> ''")


@pytest.mark.parametrize(
    ("sql", "whole"),
    [
        ("SELECT u.identity FROM users u JOIN (SELECT * FROM purchase) p USING (user_id)", "purchase"),
        ("SELECT identity FROM users WHERE user_id IN (SELECT COLUMNS('user_id') FROM purchase)", "purchase"),
        ("SELECT u.* FROM users u JOIN purchase p USING (user_id)", "users"),
        ("SELECT users.* FROM main.users, purchase", "users"),
        ("SELECT * FROM users JOIN purchase USING (user_id)", "users purchase"),
        ("SELECT * FROM (SELECT identity FROM users)", ""),
        ("SELECT q.* FROM (SELECT identity FROM users) q, purchase", ""),
        ("WITH w AS (SELECT identity FROM users) SELECT w.* FROM w, purchase", "w"),
        ("WITH w AS (FROM users) SELECT identity FROM w, purchase", "users"),
        ("SELECT identity FROM users UNION BY NAME FROM purchase", "purchase"),
        ("SELECT identity FROM users WHERE EXISTS (SELECT * FROM purchase)", ""),
        ("SELECT count(*) AS identity FROM users, purchase", ""),
        # What is not understood.
        ("SELECT identity FROM users, (SELECT users.* FROM purchase)", "users purchase"),
        ("SELECT s.* FROM users, (SELECT {'identity': cart} AS s FROM purchase)", "users purchase"),
        ("(SELECT identity FROM users UNION SELECT cart FROM purchase) ORDER BY ALL", "users purchase"),
        ("SELECT identity FROM users NATURAL JOIN purchase", "users purchase"),
        ("SELECT purchase FROM users, purchase", "users purchase"),
        ("SELECT p.identity FROM purchase AS p (a, identity), users", "users purchase"),
        ("SELECT column_name AS identity FROM (DESCRIBE users), purchase", "users purchase"),
        ("FROM (UNPIVOT purchase ON cart), users", "users purchase"),
    ],
)
def test_a_star_means_the_tables_it_stands_for(sql, whole):
    with workspace() as space:
        assert examine(space, sql).whole == set(whole.split())


def test_a_star_over_one_table_leaves_the_others_alone(dumps):
    rows = [{"user_id": 1, "identity": "ann", "email": "hello world"}]
    types = {"user_id": "long", "identity": "string", "email": "string"}
    write_part(dumps.file(1, "users"), rows, types, codec="null")
    file = dumps.file(1, "users")
    file.write_bytes(file.read_bytes().replace(b"hello world", b"hello\xff\xfeorld"))
    sql = "SELECT u.identity FROM users u LEFT JOIN (SELECT * FROM purchase) p USING (user_id)"
    assert dumps.find(sql, "identity") == [("ann",)]


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT 1; SELECT 2",
        "SELECT identity FROM users; DROP VIEW users",
        "INSERT INTO users VALUES (1)",
        "WITH made AS (INSERT INTO users VALUES (1) RETURNING *) SELECT identity FROM made, users",
        "CREATE TABLE stolen AS SELECT identity FROM users",
        "COPY users TO 'stolen.csv'",
        "COPY (SELECT identity FROM users) TO 'stolen.csv'",
        "ATTACH 'other.db'",
        "PRAGMA database_list",
        "SET threads = 8",
        "INSTALL httpfs",
        "SELECT identity FROM read_csv('{file}')",
        "SELECT identity FROM users, read_text('{file}')",
        "SELECT identity FROM users, glob('/*')",
        "SELECT identity FROM users WHERE identity IN (SELECT content FROM read_blob('{file}'))",
        "SELECT identity FROM users, query('SELECT 1')",
        "SELECT identity FROM '{file}'",
        'WITH "{file}" AS (SELECT 1) SELECT identity FROM users, (FROM "{file}")',
        'WITH a AS (WITH "{file}" AS (SELECT 1) SELECT 1) SELECT identity FROM users, "{file}"',
        "SELECT identity FROM information_schema.tables",
        "SELECT identity FROM other.users",
        "SELECT 1 AS identity",
        "SELECT identity FROM users WHERE",
        "SELECT identity FROM users WHERE age = $1",
        "SELECT nothing_like_it(identity) AS identity FROM users",
        "SELECT email FROM users",
        "SELECT identity, email AS identity FROM users",
    ],
)
def test_what_is_refused(dumps, tmp_path, monkeypatch, sql):
    file = tmp_path / "other.csv"
    file.write_text(f"identity\n{SECRET}\n")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    if sql.startswith('WITH "{file}" AS (SELECT 1)'):  # it is the query's own table, whatever its name
        assert len(dumps.find(sql.format(file=file), "identity")) == 2
    else:
        refused(dumps, sql.format(file=file))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "expression",
    [
        "email::DATE",
        "email::INTEGER",
        "error(email)",
        "(email || '1')::TIMESTAMP",
        "age + 9223372036854775807",
    ],
)
def test_a_value_that_fails_is_not_shown(dumps, expression):
    message = refused(dumps, f"SELECT {expression} AS identity FROM users")
    assert "fails on a value" in message


def test_what_is_wrong_with_the_query_is_shown(dumps):
    assert 'syntax error at or near "WHERE"' in refused(dumps, "SELECT identity WHERE WHERE FROM users")
    assert "nothing_like_it" in refused(dumps, "SELECT nothing_like_it(identity) FROM users")
    assert "no column 'phone'" in refused(dumps, "SELECT identity FROM users", "phone")
    assert "calls read_csv" in refused(dumps, "FROM read_csv('x')")


def cut(content):
    return content[:-3]


def emptied(content):
    return b""


def altered(content):
    place = len(content) - 30
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("codec", "damage"),
    [
        ("snappy", cut),
        ("snappy", emptied),
        ("snappy", altered),
        ("snappy", lambda content: SECRET.encode() * 9),
        ("deflate", cut),
        ("null", cut),
    ],
)
def test_a_damaged_file_is_never_an_empty_table(dumps, damage, codec):
    file = dumps.file(1, "users")
    write_part(
        file, [{"identity": SECRET, "user_id": 1}] * 9, {"user_id": "long", "identity": "string"}, codec
    )
    file.write_bytes(damage(file.read_bytes()))
    message = refused(dumps, "SELECT identity FROM users")
    assert "sync_1/users/part-00000-0a1b-c000.avro cannot be read" in message


def test_a_missing_file_is_never_an_empty_table(dumps):
    dumps.file(1, "users").unlink()
    assert "part-00000-0a1b-c000.avro is missing" in refused(dumps, "SELECT identity FROM users")


def test_columns_that_heap_does_not_write(dumps, capfd):
    types = {"identity": "string", "odd": {"type": "map", "values": "string"}}
    write_part(dumps.file(1, "users"), [{"identity": SECRET, "odd": {"a": SECRET}}], types)
    assert "cannot be read" in refused(dumps, "SELECT identity FROM users")
    assert SECRET not in capfd.readouterr().err


@pytest.mark.parametrize(
    "uri", ["s3://bucket/users/part-0.avro", "s3://bucket/sync_1/../../part-0.avro", "part-0.avro", ""]
)
def test_a_manifest_that_names_what_is_in_no_dump(dumps, uri):
    dumps.manifest(1, [{"name": "users", "columns": [], "files": [uri], "incremental": False}])
    assert "not in the folder of a dump" in refused(dumps, "SELECT identity FROM users")


def test_names_that_differ_in_capital_letters(dumps):
    dumps.add(2, {"users": [{"user_id": 1, "Plan": "a", "plan": "b", "identity": "ann"}]})
    assert dumps.find("SELECT identity FROM users", "identity") == [("ann",)]
    assert "two columns of one name" in refused(dumps, "SELECT plan AS identity FROM users")
    dumps.add(3, {"users": [{"user_id": 1}], "Users": [{"user_id": 2}]})
    assert "twice" in refused(dumps, "SELECT identity FROM users")


def test_the_path_is_needed(tmp_path):
    with pytest.raises(ConfigurationError, match="path of HeapConnectMembers is empty"):
        match(HeapConnectMembers(" ", "FROM users"), IdentityMapping(), Access(), tmp_path)


def test_its_members_are_matched(dumps, tmp_path, caplog):
    caplog.set_level("INFO")
    members = HeapConnectMembers(str(dumps.root), "SELECT identity, user_id FROM users")
    result = match(members, IdentityMapping(), Access(), tmp_path / "ledger")
    assert result.counts["matched"] == 2
    assert "2 rows of users in 1 files, 2 rows now" in caplog.text
    assert "2 members, from the dumps 1 to 1" in caplog.text
    assert SECRET not in caplog.text


def test_a_query_reads_times_in_utc(dumps, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    dumps.add(2, {"users": [{"identity": "ann", "seen": 1767225600000}]}, types={"seen": MILLIS})
    sql = "SELECT identity FROM users WHERE seen = TIMESTAMPTZ '2026-01-01 00:00:00+00' AND seen < now()"
    assert dumps.find(sql, "identity") == [("ann",)]
