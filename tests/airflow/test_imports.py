"""Parsing a DAG file has to be quick: what is heavy is loaded when a task runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

DAGS = Path(__file__).resolve().parents[2] / "dags"
HEAVY = ["duckdb", "pyarrow", "fastavro", "fastapi", "polars", "uvicorn", "numpy", "pandas"]
PACKAGE = "airflow_provider_heapbraze"
# What the author of a DAG writes, and the words that it is written in; everything else of ours is the engine.
WRITTEN = [
    "get_provider_info",
    "members",
    "links",
    "locations",
    "retries",
    "notifications",
    "hooks",
    "hooks.braze",
    "hooks.heap",
    "hooks._connection",
    "operators",
    "operators.approval",
    "operators.cohort",
    "operators.currents",
    "operators.ledger",
    "operators.match",
    "operators.segment",
    "operators.verify",
    "operators._airflow",
    "operators._exports",
    "operators._lineage",
    "sensors",
    "sensors.currents",
    "sensors.heap_connect",
    "triggers",
    "triggers.currents",
    "triggers.heap_connect",
    "triggers.segment",
    "triggers._patience",
    "clients",
    "clients.clock",
    "clients.errors",
    "membership",
    "membership.arguments",
    "membership.errors",
    "membership.guards",
    "membership.heap_query",
    "membership.identity",
    "membership.members",
    "heap_connect",
    "heap_connect.members",
    "segments_sync",
    "segments_sync.members",
]
PLUGIN = f"{PACKAGE}.plugin"  # it is loaded by Airflow's API server, not with a DAG file


# Airflow is imported once; each program then runs in a fork of that, and loads what is its own.
FORKS = """
import json, os, sys
from airflow.providers.common.compat.sdk import BaseOperator
from airflow.providers.http.hooks.http import HttpHook
from airflow.sdk import DAG, dag, task_group

for name, code in json.load(sys.stdin).items():
    if not os.fork():
        exec(code, {})
        print(json.dumps([name, sorted(sys.modules)]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


def loaded_by(programs):
    """Return all modules that each program has loaded, with those that Airflow itself loads for it."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        input=json.dumps(programs),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["'))


def test_dag_files_load_nothing_heavy_and_nothing_of_the_engine():
    dags = sorted(DAGS.glob("*.py"))
    assert dags
    written = [PACKAGE, *(f"{PACKAGE}.{module}" for module in WRITTEN)]
    programs = {dag.name: f"import runpy; runpy.run_path({str(dag)!r})" for dag in dags}
    programs["all that is written"] = "import " + ", ".join(written)
    programs["the plugin"] = f"import {PLUGIN}"
    programs["one that does"] = f"import fastavro, {PACKAGE}.membership.sync"
    loaded = loaded_by(programs)

    def heavy(name):
        return [module for module in HEAVY if module in loaded[name]]

    def engine(name):
        return [module for module in loaded[name] if module.startswith(PACKAGE) and module not in written]

    assert f"{PACKAGE}.membership.planning" in engine("one that does")
    assert {name: heavy(name) for name in programs} == {name: [] for name in programs} | {
        "one that does": ["fastavro"]
    }
    parsed = [*(dag.name for dag in dags), "all that is written"]
    assert {name: engine(name) for name in parsed} == {name: [] for name in parsed}


def test_the_core_never_loads_airflow():
    modules = [
        "members",
        "membership.sync",
        "membership.senders",
        "clients.braze",
        "landing.server",
        "sandbox.server",
    ]
    code = "\n".join(f"import airflow_provider_heapbraze.{module}" for module in modules)
    program = f"import sys\n{code}\nassert 'airflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
