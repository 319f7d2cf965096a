"""The services as processes: started in the order that the file asks for, and stopped in the other."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil

from stack.compose import COMPLETED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stack.compose import Service

UP_WITHIN = 240.0
STOP_WITHIN = 30.0


class Stack:
    """Services that run on this machine.

    :param services: all of them, by their names.
    :param home: folder for their logs and data.
    """

    def __init__(self, services: dict[str, Service], home: Path) -> None:
        self._services = services
        self._home = home
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @contextmanager
    def up(self) -> Iterator[Stack]:
        """Run all services for as long as the context lasts."""
        try:
            for name in self._services:
                self._start_with_needs(name)
            for name in self._running:
                self._wait_until_healthy(name)
            yield self
        finally:
            self._stop()

    def run(self, name: str, command: list[str], **more: str) -> str:
        """Run another command in the environment of a service, and some more; return what it printed."""
        environment = self._environment(name) | more
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout

    def ask(self, query: str) -> str:
        """Ask Airflow's database; return the one value."""
        about = urlsplit(self._services["initialise"].environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
        # Arguments are seen by everybody on a machine; the environment is not.
        reach = {
            "PGHOST": str(about.hostname),
            "PGPORT": str(about.port),
            "PGUSER": str(about.username),
            "PGPASSWORD": str(about.password),
            "PGDATABASE": about.path[1:],
        }
        command = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", query]
        return self.run("initialise", command, **reach).strip()

    def log(self, name: str) -> list[str]:
        """Return the lines that a service has logged."""
        return self._log(name).read_text(errors="replace").splitlines()

    def start(self, name: str) -> None:
        """Start a service that was stopped."""
        self._start_with_needs(name)
        self._wait_until_healthy(name)

    def stop(self, name: str) -> None:
        """Stop a service as its own do: it ends what it is at."""
        process = self._running.pop(name)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(STOP_WITHIN)

    def kill(self, name: str) -> None:
        """End a service, and all that it has started, as a machine that loses power does."""
        process = psutil.Process(self._running.pop(name).pid)
        for one in (*process.children(recursive=True), process):
            one.kill()

    def _start_with_needs(self, name: str) -> None:
        if name in self._running:
            return
        service = self._services[name]
        for other, condition in service.needs.items():
            self._start_with_needs(other)
            if condition == COMPLETED:
                self._wait_until_completed(other)
            else:
                self._wait_until_healthy(other)
        print(f"  {name}: {' '.join(service.command)[:90].splitlines()[0]}", flush=True)
        self._running[name] = self._start(service)

    def _start(self, service: Service) -> subprocess.Popen[bytes]:
        before = prepare_postgres(service, self._home) if service.name == "postgres" else []
        with self._log(service.name).open("ab") as log:
            return subprocess.Popen(
                [*before, *service.command],
                env=self._environment(service.name),
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _environment(self, name: str) -> dict[str, str]:
        programs = Path(sys.executable).parent
        path = f"{programs}{os.pathsep}{os.environ['PATH']}{os.pathsep}{_postgres_programs()}"
        return {"PATH": path, "HOME": str(self._home), "LANG": "C.UTF-8"} | self._services[name].environment

    def _log(self, name: str) -> Path:
        return self._home / f"{name}.log"

    def _wait_until_healthy(self, name: str) -> None:
        health = self._services[name].health
        self._wait(name, lambda: not health or not self._call(name, health))

    def _wait_until_completed(self, name: str) -> None:
        self._wait(name, lambda: self._running[name].poll() == 0)

    def _wait(self, name: str, is_there: Callable[[], bool]) -> None:
        until = time.monotonic() + UP_WITHIN
        while not is_there():
            if self._running[name].poll() not in {None, 0} or time.monotonic() > until:
                tail = "\n".join(self.log(name)[-30:])
                raise SystemExit(f"{name} did not come up:\n{tail}")
            time.sleep(0.5)

    def _call(self, name: str, command: list[str]) -> int:
        return subprocess.run(
            command,
            env=self._environment(name),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode

    def _stop(self) -> None:
        for process in reversed(self._running.values()):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        until = time.monotonic() + STOP_WITHIN
        for process in self._running.values():
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def prepare_postgres(service: Service, home: Path) -> list[str]:
    """Make a database as the image does before its command; return what runs it as another user than root."""
    environment = service.environment
    data = home / "volumes" / "database"
    data.mkdir(parents=True, exist_ok=True)
    password = home / "password"
    password.touch(mode=0o600)
    password.write_text(environment["POSTGRES_PASSWORD"])
    as_user: list[str] = []
    if not os.geteuid():
        user = pwd.getpwnam("postgres")
        for path in (data, password):
            os.chown(path, user.pw_uid, user.pw_gid)
        as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    programs = _postgres_programs()
    initdb = [
        *as_user,
        f"{programs}/initdb",
        f"--pgdata={data}",
        f"--username={environment['POSTGRES_USER']}",
        f"--pwfile={password}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    ]
    subprocess.run(initdb, cwd=data, check=True, stdout=subprocess.DEVNULL)
    password.unlink()
    single = [*as_user, f"{programs}/postgres", "--single", "-D", str(data), "postgres"]
    create = f"CREATE DATABASE {environment['POSTGRES_DB']} OWNER {environment['POSTGRES_USER']};\n"
    subprocess.run(single, cwd=data, check=True, stdout=subprocess.DEVNULL, input=create.encode())
    return [*as_user, "env", f"PGDATA={data}"]


def _postgres_programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        raise SystemExit("Postgres is not installed: apt-get install postgresql redis-server")
    return (found[-1] if found else Path(str(on_path)).resolve()).parent
