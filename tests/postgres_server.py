"""A Postgres server of its own, from the system's packages; gone with its data when the tests are done."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.airflow_home import free_port

PACKAGES = Path("/usr/lib/postgresql")


class PostgresServer:
    """A running server.

    :param folder: of its socket and its log.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.connection = {
            "conn_type": "postgres",
            "host": "127.0.0.1",
            "port": port,
            "login": "heapbraze",
            "password": "of the tests only",
            "schema": "postgres",
        }

    def execute(self, sql, *values):
        """Carry out statements as the database's owner; return the rows of a query."""
        import psycopg

        with psycopg.connect(
            host=str(self.folder), port=self.port, user="heapbraze", dbname="postgres", autocommit=True
        ) as opened:
            done = opened.execute(sql, values or None)
            return done.fetchall() if done.description else []

    def log(self):
        """Return what the server logged: every statement."""
        return (self.folder / "log").read_text()


def programs():
    """Return the folder of the newest server's programs; skip where there is none, but fail in CI."""
    found = sorted(PACKAGES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if found or on_path:
        return (found[-1] if found else Path(on_path).resolve()).parent
    missing = "No Postgres server is installed: apt-get install postgresql"
    if os.environ.get("CI"):
        pytest.fail(missing)
    return pytest.skip(missing)


def other_user():
    """Return what runs a command as an ordinary user, as Postgres wants it; none where we are one."""
    if os.geteuid():
        return [], None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    return [
        "setpriv",
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
    ], user


@pytest.fixture(scope="session")
def postgres():
    """Give a server that all tests of one worker share."""
    with postgres_server() as server:
        yield server


@contextmanager
def postgres_server(**more):
    """Start a server that listens on this machine only; stop it at the end.

    :param more: settings.
    """
    binaries = programs()
    as_user, user = other_user()
    # In a folder that another user reaches, with a path short enough for a socket.
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as name:
        folder = Path(name)
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        data, port = folder / "data", free_port()

        def run(program, *arguments):
            done = subprocess.run(
                [*as_user, binaries / program, "-D", data, *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout

        (folder / "password").write_text("of the tests only")
        (folder / "password").chmod(0o644)
        run(
            "initdb", "--no-sync", "--username=heapbraze", "--encoding=UTF8", "--locale=C",
            "--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={folder}/password",
        )  # fmt: skip
        settings = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": folder,
            "fsync": "off",
            "log_statement": "all",
            **more,
        }
        options = " ".join(f"-c {key}={value}" for key, value in settings.items())
        run("pg_ctl", "-w", "-o", options, "-l", folder / "log", "start")
        try:
            yield PostgresServer(folder, port)
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
