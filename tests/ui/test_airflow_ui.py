"""What people see in Airflow's UI, in a real browser."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect, sync_playwright

CHROMIUM = shutil.which("chromium")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")


@contextmanager
def browser():
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        try:
            page = opened.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(60_000)
            expect.set_options(timeout=60_000)  # it has a default of its own, of 5 seconds
            yield page
        finally:
            opened.close()


def test_the_connection_form(running_airflow):
    """Every field has its label, and keys are hidden. (Of the extras Airflow shows those that are set.)"""
    with browser() as page:
        page.goto(f"{running_airflow.url}/connections")
        row = page.get_by_role("row", name="braze_default")
        row.get_by_role("button", name="Edit Connection").click()
        form = page.get_by_role("dialog")
        expect(form.get_by_text("REST endpoint")).to_be_visible()
        expect(form.get_by_text("REST API key")).to_be_visible()
        form.get_by_text("Extra Fields", exact=True).click()
        for label in ("Partner API key", "Data import key", "Currents token"):
            expect(form.get_by_text(label, exact=True)).to_be_visible()
        for name in ("partner_api_key", "data_import_key"):
            expect(form.locator(f"input[name='element_{name}']")).to_have_attribute("type", "password")
        assert "sandbox-data-import-key" not in page.content()


def test_the_test_button(running_airflow, heapbraze_sandbox):
    """It says what can be done with the keys, or which one to mend."""
    heapbraze_sandbox.settings(data_import_key="another-data-import-key")
    with browser() as page:
        page.goto(f"{running_airflow.url}/connections")
        row = page.get_by_role("row", name="braze_default")
        with page.expect_response("**/connections/test") as answer:
            row.get_by_role("button", name="Test Connection").click()
        assert answer.value.json()["status"] is False
        assert "data_import_key was refused" in answer.value.json()["message"]
        expect(page.get_by_text("the data_import_key was refused")).to_be_visible()


def test_a_green_run(running_airflow, heapbraze_sandbox):
    """A run is green, and its import goes by the cohort's name."""
    airflow = running_airflow
    heapbraze_sandbox.add_users([{"external_id": "somebody-in-particular"}])
    airflow.write_segment(["somebody-in-particular"])
    airflow.run("dags", "trigger", "heap_cohorts_to_braze", "--run-id", "seen-in-the-ui")
    seen = "SELECT state FROM dag_run WHERE run_id = 'seen-in-the-ui'"
    airflow.wait_for(lambda: airflow.query(seen) == [("success",)])
    with browser() as page:
        page.goto(f"{airflow.url}/dags/heap_cohorts_to_braze/runs/seen-in-the-ui/tasks/group/cohort")
        row = page.get_by_role("row", name="cohort.import")
        expect(row).to_contain_text("heap-cohort")
        expect(row).to_contain_text("Success")
