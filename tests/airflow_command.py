"""Airflow's command line without its start: Airflow is imported once, and each command is a fork of that.

Most of the time of a short command goes into Airflow's import, and into the API that tasks talk to, which is
made at its first request. A command finds what a new process would: an environment and a database of its own,
and nothing that a command before it left in memory. ``python -m tests.airflow_command`` reads commands from
its input, one a line.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


class AirflowCommands:
    """The process that commands are forked from.

    :param environment: what all commands share; Airflow reads some of it at its import only.
    """

    def __init__(self, environment):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.airflow_command"],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments, environment, output):
        """Run a command, which prints into a file; return its exit code."""
        line = {"arguments": arguments, "environment": environment, "output": str(output)}
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


def serve():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Airflow prints at its import is no answer
    import_airflow()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return become(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
    return None


def import_airflow():
    """Import all that most commands need, and start no thread: a fork would lack it."""
    import airflow.__main__
    import httpx
    from airflow.cli.commands import dag_command  # noqa: F401 - imported for the commands
    from airflow.sdk.execution_time import task_runner  # noqa: F401
    from airflow.sdk.execution_time.supervisor import in_process_api_server

    async def ask():
        transport = in_process_api_server().atransport
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
            await client.get("/no-such-path")

    asyncio.run(ask())
    airflow.__main__.cli_parser.get_parser()
    gc.freeze()  # nor does a fork look through it all when it ends


def become(arguments, environment, output):
    """Do in a fork what a new process does."""
    import airflow.__main__
    from airflow import settings

    printed = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(printed, number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["airflow", *arguments]
    settings.configure_vars()
    settings.reconfigure_orm()
    airflow.__main__.main()


if __name__ == "__main__":
    serve()
