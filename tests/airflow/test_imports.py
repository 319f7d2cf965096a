"""Parsing a DAG file has to be quick: what is heavy is loaded when a task runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


def loaded_by(code):
    """Return which heavy modules a program has loaded that does not load them through Airflow itself."""
    program = f"import sys, json\n{code}\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_operators_load_nothing_heavy():
    assert loaded_by("import " + ", ".join(OPERATORS)) == []


@pytest.mark.parametrize("dag", sorted(DAGS.glob("*.py")), ids=lambda path: path.name)
def test_dags_load_nothing_heavy(dag):
    assert loaded_by(f"import runpy; runpy.run_path({str(dag)!r})") == []


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
