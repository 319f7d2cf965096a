"""Parsing a DAG file has to be quick: what is heavy is loaded when a task runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

DAGS = Path(__file__).resolve().parents[2] / "dags"
HEAVY = ["duckdb", "pyarrow", "fastavro", "fastapi", "polars", "uvicorn", "numpy", "pandas"]
OPERATORS = [
    "airflow_provider_heapbraze.members",
    "airflow_provider_heapbraze.operators.match",
    "airflow_provider_heapbraze.operators.cohort",
    "airflow_provider_heapbraze.operators.approval",
    "airflow_provider_heapbraze.hooks.braze",
    "airflow_provider_heapbraze.hooks.heap",
    "airflow_provider_heapbraze.plugin",
    "airflow_provider_heapbraze.sensors.heap_connect",
]


# Airflow is imported once; each program then runs in a fork of that, and loads what is its own.
FORKS = f"""
import json, os, sys
from airflow.providers.common.compat.sdk import BaseOperator
from airflow.providers.http.hooks.http import HttpHook
from airflow.sdk import DAG, dag, task_group

for name, code in json.load(sys.stdin).items():
    if not os.fork():
        exec(code, {{}})
        print(json.dumps([name, [module for module in {HEAVY} if module in sys.modules]]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


def loaded_by(programs):
    """Return which heavy modules each program has loaded, with what Airflow itself loads for it."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        input=json.dumps(programs),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["'))


def test_operators_and_dags_load_nothing_heavy():
    dags = sorted(DAGS.glob("*.py"))
    assert dags
    programs = {dag.name: f"import runpy; runpy.run_path({str(dag)!r})" for dag in dags}
    programs["operators"] = "import " + ", ".join(OPERATORS)
    programs["one that does"] = "import fastavro"
    loaded = {name: [] for name in programs} | {"one that does": ["fastavro"]}
    assert loaded_by(programs) == loaded


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
