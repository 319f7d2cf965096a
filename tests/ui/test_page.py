"""The page *Heap ↔ Braze*, in a real browser: every view, in both themes, on a phone, for every reader."""

from __future__ import annotations

import shutil
from urllib.parse import quote

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.airflow_home import DAG_ID
from tests.ui.test_airflow_ui import CHROMIUM, browser
from tests.unit.ledger_check.test_check import make_source
from tests.unit.overview import ledgers

HOSTILE = '<script>document.title = "hostile"</script>'
RUN_ID = f"{DAG_ID}/scheduled__2026-11-24/import"
EXPORTED = {
    **dict.fromkeys(("duplicates", "anonymous", "filtered", "rejected", "cut"), 0),
    "events": 3,
    "sent": 3,
    "files": 1,
    "set_aside": [],
    "filtered_by": {},
    "rejected_by": {},
    "finished_at": "2026-11-24T02:30:00+00:00",
    "seconds": 1.5,
    "kept_aside": "s3://bucket/aside",
    "requests": {"requests": 3, "waits": 0, "seconds_waited": 0, "by_status": {"204": 3}},
}
PHONE = {"width": 390, "height": 844}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")


@pytest.fixture
def page_url(running_airflow):
    return f"{running_airflow.url}/heapbraze/page/"


@pytest.fixture
def cohorts(running_airflow, page_url):
    """Write cohorts of the DAG that Airflow has; return the folder of the first."""

    def write(*ids, name="", listed=True, **how):
        root = running_airflow.ledger
        folders = [ledgers.cohort(root, cohort_id, name=name, dag=DAG_ID, **how) for cohort_id in ids]
        # For two seconds the list may be that of the test before.
        written = {folder.name for folder in folders}
        running_airflow.wait_for(lambda: not listed or written <= in_the_list(page_url))
        return folders[0].name

    return write


def in_the_list(page_url):
    return {record["folder"] for record in requests.get(f"{page_url}api/records", timeout=30).json()}


def run_url(folder):
    return f"targets/{folder}/run?id={quote(RUN_ID, safe='')}"


def faults(page):
    """Return what axe finds wrong."""
    found = Axe().run(page).response["violations"]
    return [(fault["id"], [node["html"][:120] for node in fault["nodes"]]) for fault in found]


def test_it_is_in_airflows_navigation(running_airflow, cohorts):
    """It opens in Airflow, and its links to tasks lead out of the frame."""
    cohorts("in-the-navigation", nights=30)
    with browser() as page:
        page.goto(running_airflow.url)
        page.get_by_role("link", name="Heap ↔ Braze").click()
        frame = page.frame_locator("iframe[title='Heap ↔ Braze']")
        frame.get_by_role("link", name="in-the-navigation").click()
        expect(frame.get_by_role("heading", name="in-the-navigation")).to_be_visible()
        frame.get_by_role("link", name=f"task of {RUN_ID}").click()
        page.wait_for_url(f"**/dags/{DAG_ID}/runs/scheduled__2026-11-24/tasks/import")


def test_every_view_is_for_every_reader(running_airflow, page_url, cohorts):
    folder = cohorts("for-every-reader", name="For every reader", nights=40)
    damaged = cohorts("damaged-for-every-reader", said=False, listed=False)
    shutil.rmtree(running_airflow.ledger / "targets" / damaged / "snapshots")
    make_source(running_airflow.ledger, f"{DAG_ID}/scheduled__2026-11-24/export", report_more=EXPORTED)
    (source,) = (path.name for path in (running_airflow.ledger / "sources").iterdir())
    said = []
    with browser() as page:
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        for view in ("", f"targets/{folder}", f"targets/{damaged}", f"sources/{source}", run_url(folder)):
            for theme in ("light", "dark"):
                page.emulate_media(color_scheme=theme)
                page.goto(page_url + view)
                expect(page.get_by_role("heading", level=1)).to_be_visible()
                assert faults(page) == [], (view, theme)
    assert said == [], "the browser has nothing to say, of the content security policy neither"


def test_it_fits_a_phone(page_url, cohorts):
    folder = cohorts("on-a-phone", name="A cohort with a long name on a phone", nights=40)
    with browser() as page:
        page.set_viewport_size(PHONE)
        for view in ("", f"targets/{folder}", run_url(folder)):
            page.goto(page_url + view)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], view
            assert faults(page) == [], view


def test_it_has_the_theme_that_was_chosen_in_airflow(page_url, cohorts):
    cohorts("in-a-theme")
    back = "getComputedStyle(document.body).backgroundColor"
    with browser() as page:
        page.emulate_media(color_scheme="light")
        page.goto(page_url)
        light = page.evaluate(back)
        page.evaluate("localStorage.setItem('theme', 'dark')")
        page.reload()
        dark = page.evaluate(back)
        assert light != dark
        page.evaluate("localStorage.setItem('theme', 'system')")
        page.reload()
        assert page.evaluate(back) == light
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(back) == dark


def test_a_hostile_name_is_text(page_url, cohorts):
    folder = cohorts("hostile", name=HOSTILE)
    with browser() as page:
        for view in ("", f"targets/{folder}", run_url(folder)):
            page.goto(page_url + view)
            expect(page.get_by_text(HOSTILE).first).to_be_visible()
            assert page.title() != "hostile"


def test_a_thousand_cohorts(page_url, cohorts):
    """They are found, filtered and sorted, by keyboard alone."""
    cohorts(*(f"one-of-many-{number:04}" for number in range(1000)), size=20)
    with browser() as page:
        page.goto(page_url)
        rows = page.locator(".list tbody tr:visible")
        expect(rows).to_have_count(1000)
        page.get_by_label("Find").focus()
        page.keyboard.type("MANY-09")
        expect(rows).to_have_count(100)
        page.get_by_role("button", name="Size").focus()
        page.keyboard.press("Enter")
        sizes = [int(text) for text in page.locator("tr:visible td[data-label=Size]").all_inner_texts()]
        assert sizes == sorted(sizes)
        page.keyboard.press("Enter")
        expect(page.get_by_role("columnheader", name="Size")).to_have_attribute("aria-sort", "descending")
        page.get_by_label("State").select_option("damaged")
        expect(rows).to_have_count(0)


def test_what_is_wrong_comes_first_and_says_what_to_do(running_airflow, page_url, cohorts):
    damaged = cohorts("damaged-cohort", said=False, listed=False)
    shutil.rmtree(running_airflow.ledger / "targets" / damaged / "snapshots")
    cohorts("a-whole-cohort")
    with browser() as page:
        page.goto(page_url)
        expect(page.locator(".list tbody tr").first).to_contain_text("damaged-cohort")
        page.get_by_role("link", name="damaged-cohort").click()
        expect(page.locator(".note.bad")).to_contain_text("clear the task with force_full=True")


def test_links_lead_to_braze_and_heap(page_url, cohorts):
    folder = cohorts("with-links")
    with browser() as page:
        page.goto(page_url + f"targets/{folder}")
        braze = page.get_by_role("link", name="Braze's dashboard")
        assert braze.get_attribute("href") == "https://dashboard-01.braze.com"
        assert page.get_by_role("link", name="Open Heap").get_attribute("href").startswith("https://heap")
        page.get_by_role("link", name=RUN_ID).first.click()
        expect(page.get_by_role("heading", name="with-links: a run")).to_be_visible()
        page.get_by_role("link", name="Heap ↔ Braze").click()
        expect(page.get_by_role("link", name="with-links")).to_be_visible()


def test_a_task_links_to_its_run(running_airflow, heapbraze_sandbox):
    """Of a run that failed, too: the link is there from its start on."""
    airflow = running_airflow
    heapbraze_sandbox.add_users([{"external_id": "somebody-in-particular"}])
    for run_id, members in (("linked", ["somebody-in-particular"]), ("linked-and-failed", [])):
        airflow.write_segment(members)
        airflow.run("dags", "trigger", DAG_ID, "--run-id", run_id)
        state = f"SELECT state FROM dag_run WHERE run_id = '{run_id}' AND state IN ('success', 'failed')"
        airflow.wait_for(lambda state=state: airflow.query(state))
    with browser() as page:
        for run_id, said in (("linked", "Held at the end"), ("linked-and-failed", "not carried out")):
            page.goto(f"{airflow.url}/dags/{DAG_ID}/runs/{run_id}/tasks/cohort.import/mapped/0/details")
            page.get_by_role("link", name="Heap and Braze report").click()
            expect(page.get_by_text(said).first).to_be_visible()
