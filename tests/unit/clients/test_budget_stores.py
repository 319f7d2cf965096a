"""What holds for every store of a shared budget, and what real processes make of it."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_heapbraze.clients.budget_stores import (
    FileStore,
    PostgresStore,
    RedisStore,
    exchange,
    hashed,
)
from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK
from airflow_provider_heapbraze.clients.errors import BudgetAwayError, ConfigurationError
from airflow_provider_heapbraze.clients.shared_budget import SharedBudget
from airflow_provider_heapbraze.clients.sharing import Terms


class Files:
    """Stores in a folder, and how another process makes one."""

    def __init__(self, folder):
        self.folder = folder
        self.code = (
            "from pathlib import Path\n"
            "from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK\n"
            f"store = FileStore(lambda: Path({str(folder)!r}), SYSTEM_CLOCK)\n"
        )

    def make(self):
        return FileStore(lambda: self.folder, SYSTEM_CLOCK)


class Redis:
    def __init__(self, server):
        self.server = server
        self.code = (
            "import redis\n"
            f"store = RedisStore(lambda: redis.Redis(port={server.port}, password='of the tests only'))\n"
        )

    def make(self):
        return RedisStore(self.server.client)


class Postgres:
    def __init__(self, server):
        self.server = server
        self.address = (
            f"host=127.0.0.1 port={server.port} user=heapbraze dbname=postgres password='of the tests only'"
        )
        self.code = f"import psycopg\nstore = PostgresStore(lambda: psycopg.connect({self.address!r}))\n"

    def make(self):
        import psycopg

        return PostgresStore(lambda: psycopg.connect(self.address))


@pytest.fixture(params=["file", "redis", "postgres"])
def kind(request, tmp_path):
    """Give one kind of store, with nothing in it."""
    if request.param == "file":
        return Files(tmp_path)
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        with server.client() as client:
            client.flushall()
        return Redis(server)
    server = request.getfixturevalue("postgres")
    server.execute("DROP TABLE IF EXISTS heapbraze_budget")
    return Postgres(server)


@pytest.fixture
def make_store(kind):
    made = []

    def make():
        made.append(kind.make())
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store):
    return make_store()


def test_a_document_is_exchanged_for_the_one_that_was_read_only(store, make_store):
    other = make_store()
    assert store.read("a").document is None
    assert store.replace("a", None, "one")
    assert not other.replace("a", None, "late")
    assert other.read("a").document == "one"
    assert other.replace("a", "one", "two")
    assert not store.replace("a", "one", "late")
    assert store.read("a").document == "two"
    assert store.read("b").document is None


def test_its_clock_runs_forward_for_all_alike(store, make_store):
    times = [each.read("a").now for each in (store, make_store(), store, make_store())]
    assert times == sorted(times)
    assert times[-1] - times[0] < 60


def test_what_it_holds_stays_for_those_who_come_later(make_store):
    earlier = make_store()
    earlier.replace("a", None, "one")
    earlier.close()
    assert make_store().read("a").document == "one"


def test_a_closed_store_can_be_closed_again(store):
    store.close()
    store.read("a")
    store.close()
    store.close()


def test_nobodys_change_is_lost(make_store):
    """Threads of several stores count together."""
    stores, start = [make_store() for _ in range(3)], threading.Barrier(6)

    def count(number):
        start.wait()
        for _ in range(20):
            exchange(
                stores[number % 3], "n", lambda seen: (str(int(seen.document or 0) + 1), None), time.sleep
            )

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(count, number) for number in range(6)]:
            future.result()
    assert stores[0].read("n").document == "120"


SENDER = """
import sys
from airflow_provider_heapbraze.clients.budget_stores import FileStore, PostgresStore, RedisStore
from airflow_provider_heapbraze.clients.shared_budget import SharedBudget
{make}
budget = SharedBudget(store, "shared", {limit}, {period})
print("begins", flush=True)
sys.stdin.readline()
for _ in range({requests}):
    budget.acquire()
    sys.stdout.write(".")
    sys.stdout.flush()
budget.close()
"""


def start_sender(kind, limit, period, requests):
    code = SENDER.format(make=kind.code, limit=limit, period=period, requests=requests)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"begins\n"
    return process


def test_processes_share_the_limit_and_one_is_killed(kind):
    limit, period = 2_000, 10.0
    senders = [start_sender(kind, limit, period, requests) for requests in (150, 150, 150, 100_000)]
    began = time.monotonic()
    for sender in senders:
        sender.stdin.write(b"\n")
        sender.stdin.flush()
    killed = senders.pop()
    sent = len(killed.stdout.read(20))
    killed.send_signal(signal.SIGKILL)
    sent += len(killed.communicate(timeout=60)[0])
    outputs = [sender.communicate(timeout=60)[0] for sender in senders]
    seconds = time.monotonic() - began
    assert [len(output) for output in outputs] == [150, 150, 150]
    assert [sender.returncode for sender in senders] == [0, 0, 0]
    terms = Terms.of(limit, period)
    # However late each was: no more than this can have gone in a time that is as long.
    assert sent + 450 <= terms.burst + seconds / terms.interval + 1


def test_nothing_that_is_kept_is_readable():
    name = hashed("https://rest.iad-01.braze.com", "cohorts", "a-partner")
    assert name.isalnum()
    assert len(name) == 24
    assert name != hashed("https://rest.iad-01.braze.com", "cohorts", "another")
    assert hashed("a", "b") != hashed("ab")


def test_what_a_file_holds_names_nobody(tmp_path):
    store = Files(tmp_path).make()
    SharedBudget(store, hashed("https://rest.iad-01.braze.com", "a-partner"), 10, 1.0).acquire()
    store.close()
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert b"braze.com" not in content
        assert b"a-partner" not in content


def test_a_damaged_file_is_told_with_a_way_on(tmp_path):
    (tmp_path / "requests.sqlite").write_bytes(b"garbage " * 2_000)
    with pytest.raises(ConfigurationError, match="Remove it"):
        Files(tmp_path).make().read("a")


def test_a_file_that_is_locked_too_long_is_away(tmp_path, monkeypatch):
    monkeypatch.setattr("airflow_provider_heapbraze.clients.shared_file.LOCK_SECONDS", 0.05)
    store = Files(tmp_path).make()
    store.read("a")
    other = sqlite3.connect(tmp_path / "requests.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BudgetAwayError, match=r"requests\.sqlite"):
        store.replace("a", None, "one")
    other.close()
    assert store.replace("a", None, "one")
    store.close()


def test_a_redis_that_comes_back_is_used_again(redis_server):
    store = RedisStore(redis_server.client)
    store.replace("a", None, "one")
    redis_server.stop()
    with pytest.raises(BudgetAwayError, match="Redis"):
        store.read("a")
    redis_server.start()
    assert store.read("a").document is None
    store.close()


def test_a_redis_that_refuses_us_is_no_matter_of_time(redis_server):
    with pytest.raises(ConfigurationError, match="refuses") as caught:
        RedisStore(lambda: redis_server.client("a wrong password")).read("a")
    assert "wrong password" not in str(caught.value)


def test_nothing_stays_in_redis_for_ever(redis_server):
    store = RedisStore(redis_server.client)
    store.replace("kept", None, "one")
    with redis_server.client() as client:
        (key,) = [key for key in client.scan_iter() if b"kept" in key]
        assert 0 < client.ttl(key) <= 86_400
    store.close()


def test_a_postgres_that_cuts_us_off_is_used_again(postgres):
    store = Postgres(postgres).make()
    store.replace("cut", None, "one")
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE state = 'idle' AND pid <> pg_backend_pid()"
    )
    with pytest.raises(BudgetAwayError, match="Postgres"):
        store.read("cut")
    assert store.read("cut").document == "one"
    store.close()


def test_who_may_not_make_a_table_in_postgres_is_told(postgres):
    import psycopg

    postgres.execute("DROP TABLE IF EXISTS heapbraze_budget")
    postgres.execute("DROP ROLE IF EXISTS nobody_much")
    postgres.execute("CREATE ROLE nobody_much LOGIN")
    address = f"host={postgres.folder} port={postgres.port} user=nobody_much dbname=postgres"
    refused = PostgresStore(lambda: psycopg.connect(address))
    with pytest.raises(ConfigurationError, match="refuses"):
        refused.read("a")
    owner = Postgres(postgres).make()
    owner.read("a")
    postgres.execute("GRANT SELECT, INSERT, UPDATE ON heapbraze_budget TO nobody_much")
    assert refused.replace("a", None, "one")
    refused.close()
    owner.close()


def test_a_server_that_is_not_there_is_away():
    import psycopg

    address = f"host=127.0.0.1 port=1 user=nobody dbname=none connect_timeout={5}"
    with pytest.raises(BudgetAwayError, match="Postgres"):
        PostgresStore(lambda: psycopg.connect(address)).read("a")


def test_another_process_reads_the_same_clock(tmp_path):
    """The machine's."""
    make = "from airflow_provider_heapbraze.clients.budget_stores import FileStore\n" + Files(tmp_path).code
    script = f"{make}\nprint(store.read('a').now)"
    before = SYSTEM_CLOCK.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert before <= float(done.stdout) <= SYSTEM_CLOCK.monotonic()
