"""The link from a task to what it did."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_heapbraze.links import HeapBrazeRunLink, push_run_link
from tests.airflow.cohorts import context


@pytest.mark.parametrize("base", ["", "https://airflow.example/proxied/"])
def test_it_is_the_place_of_the_run_on_the_page(monkeypatch, base):
    """Behind a proxy's path, too; a mapped task has a link of its own."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    task = context(map_index=3)
    operator = SimpleNamespace()
    push_run_link(operator, task, "targets", "cohort-a-0123456789ab", "cohorts/night-1/import/3")
    link = task["ti"].pushed[HeapBrazeRunLink().xcom_key]
    page = "/heapbraze/page/targets/cohort-a-0123456789ab/run"
    assert HeapBrazeRunLink().get_link(operator, ti_key=None) == link
    assert link == f"{base.rstrip('/')}{page}?id=cohorts%2Fnight-1%2Fimport%2F3"
