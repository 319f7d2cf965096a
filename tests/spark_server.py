"""A Spark cluster of its own, from the package index; gone with its data when the tests are done.

A master, two workers of one core each, and the Thrift server, which is an application on that cluster. It
is what ``HiveServer2Hook`` connects to, of Airflow's provider for Apache Hive.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow_home import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HOST = "127.0.0.1"
WORKERS = 2
SECONDS_TO_START = 150
LINES_SHOWN = 30
MASTER = "org.apache.spark.deploy.master.Master"
WORKER = "org.apache.spark.deploy.worker.Worker"
THRIFT_SERVER = "org.apache.spark.sql.hive.thriftserver.HiveThriftServer2"
LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex
"""


class SparkServer:
    """A running cluster, and the Thrift server that takes SQL for it.

    :param folder: of its warehouse, its settings and its logs.
    """

    def __init__(self, home: Path, folder: Path) -> None:
        self.folder = folder
        self.scratch = folder / "scratch"
        self.port = free_port()
        self.connection: dict[str, Any] = {
            "conn_type": "hiveserver2",
            "host": HOST,
            "port": self.port,
            "login": "heapbraze",
            "schema": "default",
            "extra": {"auth_mechanism": "NONE"},
        }
        self._home = home
        self._master_port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def execute(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Carry out one statement; return the rows of a query."""
        from pyhive import hive

        with (
            hive.connect(HOST, self.port, "heapbraze", auth="NONE") as opened,
            opened.cursor() as cursor,
        ):
            cursor.execute(sql, values or None)
            rows: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
            return rows

    def log(self) -> str:
        """Return what the Thrift server logged: warnings, errors and their statements."""
        return self._log("thrift")

    def start(self) -> None:
        """Start all of it, and wait until it takes connections."""
        configuration = self.folder / "conf"
        configuration.mkdir()
        self.scratch.mkdir()
        settings = "".join(f"{key} {value}\n" for key, value in self._settings().items())
        (configuration / "spark-defaults.conf").write_text(settings)
        (configuration / "log4j2.properties").write_text(LOGGING)
        until = time.monotonic() + SECONDS_TO_START
        common = ("--host", HOST, "--webui-port", "0")
        self._run("master", "spark-class", MASTER, *common, "--port", str(self._master_port))
        # Who asks a master that is not up waits for long before the next time.
        self._wait("master", self._master_port, until)
        for number in range(1, WORKERS + 1):
            work = ("--work-dir", str(self.folder / f"work{number}"))
            size = ("--cores", "1", "--memory", "1g")
            self._run(f"worker{number}", "spark-class", WORKER, *common, *size, *work, self._master)
        self._run("thrift", "spark-submit", "--class", THRIFT_SERVER, "spark-internal", memory="640m")
        self._wait("thrift", self.port, until)

    def stop(self) -> None:
        """Stop all of it at once: nothing of it is kept."""
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the executors that a worker started
            process.wait()

    @property
    def _master(self) -> str:
        return f"spark://{HOST}:{self._master_port}"

    @property
    def _java_options(self) -> str:
        # A process lives for minutes on few cores: little memory, and code that is compiled quickly.
        return f"-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.io.tmpdir={self.scratch}"

    def _settings(self) -> Mapping[str, object]:
        return {
            "spark.master": self._master,
            "spark.app.name": "tests",
            "spark.driver.host": HOST,
            "spark.driver.bindAddress": HOST,
            "spark.driver.extraJavaOptions": f"{self._java_options} -Dderby.system.home={self.scratch}",
            "spark.executor.cores": 1,
            "spark.executor.memory": "512m",
            "spark.executor.extraJavaOptions": self._java_options,
            # The first statement waits for both workers, so that each that follows runs on both.
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            "spark.ui.enabled": "false",
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.shuffle.partitions": 4,
            "spark.sql.warehouse.dir": self.folder / "warehouse",
            "spark.hadoop.hive.exec.scratchdir": self.scratch / "hive",
            "spark.hadoop.hive.server2.thrift.bind.host": HOST,
            "spark.hadoop.hive.server2.thrift.port": self.port,
            "spark.hadoop.javax.jdo.option.ConnectionURL": "jdbc:derby:memory:metastore;create=true",
        }

    def _run(self, name: str, program: str, *arguments: str, memory: str = "128m") -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SPARK_")}
        environment |= {
            "SPARK_HOME": str(self._home),
            "SPARK_CONF_DIR": str(self.folder / "conf"),
            "SPARK_DAEMON_JAVA_OPTS": self._java_options,
            "SPARK_DAEMON_MEMORY": memory,
            "SPARK_LOCAL_DIRS": str(self.scratch),
            "SPARK_LOCAL_IP": HOST,
        }
        with (self.folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [self._home / "bin" / program, *arguments],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait(self, name: str, port: int, until: float) -> None:
        """Wait until one of the processes answers; fail with what the logs say if it does not."""
        while True:
            with suppress(ConnectionRefusedError), socket.create_connection((HOST, port), timeout=5):
                return
            ended = [each for each, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > until:
                break
            time.sleep(0.1)
        problem = f"ended: {', '.join(ended)}" if ended else f"no answer from {name}"
        logs = "\n".join(f"--- {each}.log\n{self._log(each, LINES_SHOWN)}" for each in self._processes)
        pytest.fail(f"Spark does not come up ({problem}).\n{logs}", pytrace=False)

    def _log(self, name: str, lines: int = 0) -> str:
        said = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(said[-lines:])


def spark_home() -> Path:
    """Return the folder of Spark's programs; skip where it or Java is missing, but fail in CI.

    That is the one that ``SPARK_HOME`` names, or the package ``pyspark`` where tests run.
    """
    found = find_spec("pyspark")
    named = os.environ.get("SPARK_HOME") or (found and found.origin and Path(found.origin).parent)
    java = Path(os.environ["JAVA_HOME"]) / "bin/java" if "JAVA_HOME" in os.environ else shutil.which("java")
    if named and java and list(Path(named).glob("jars/spark-hive-thriftserver_*.jar")):
        return Path(named)
    missing = "No Spark is installed: pip install pyspark pyhive; apt-get install openjdk-17-jre-headless"
    if os.environ.get("CI"):
        pytest.fail(missing)
    return pytest.skip(missing)


@contextmanager
def spark_server() -> Iterator[SparkServer]:
    """Start a server that listens on this machine only; stop it at the end."""
    home = spark_home()
    with tempfile.TemporaryDirectory(prefix="spark-", ignore_cleanup_errors=True) as name:
        server = SparkServer(home, Path(name))
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkServer]:
    """Give a Spark that all tests of one worker share."""
    with spark_server() as server:
        yield server
