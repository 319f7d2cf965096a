"""A Redis server of its own, from the system's packages; gone with its data when the tests are done."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest

from tests.airflow_home import free_port

PASSWORD = "of the tests only"


class RedisServer:
    """A server that can be stopped and started again, empty."""

    def __init__(self, program, port):
        self.port = port
        self.connection = {
            "conn_type": "redis",
            "host": "127.0.0.1",
            "port": port,
            "password": PASSWORD,
            "extra": {"db": 0},
        }
        self._program = program
        self._process = None

    def client(self, password=PASSWORD):
        """Return a client; it connects when it is used."""
        import redis

        return redis.Redis(port=self.port, password=password, socket_timeout=5)

    def start(self):
        """Start it, and wait until it answers."""
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD]
        self._process = subprocess.Popen([self._program, *arguments], stdout=subprocess.DEVNULL)
        while not self._answers():
            assert self._process.poll() is None
            time.sleep(0.02)

    def stop(self):
        """Stop it at once."""
        self._process.kill()
        self._process.wait()

    def _answers(self):
        import redis

        try:
            with self.client() as client:
                return client.ping()
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            return False


@pytest.fixture(scope="session")
def redis_server():
    """Give a server that listens on this machine only; skip where there is none, but fail in CI."""
    program = shutil.which("redis-server")
    if program is None:
        missing = "No Redis server is installed: apt-get install redis-server"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    pytest.importorskip("redis")
    server = RedisServer(program, free_port())
    server.start()
    try:
        yield server
    finally:
        server.stop()
