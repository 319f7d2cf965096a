"""The pictures of the documentation, made anew: ``make screenshots``.

An Airflow of its own runs with the sandbox, in a folder that is removed at the end. Each picture is taken in
the light and in the dark: ``docs/images/<name>-light.webp`` and ``docs/images/<name>-dark.webp``.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import sys
from contextlib import contextmanager
from urllib.parse import quote

from playwright.sync_api import sync_playwright

from airflow_provider_heapbraze.pages.reports import membership_report
from tests.airflow_home import DAG_ID, PROJECT
from tests.ui.test_airflow_ui import CHROMIUM, QUIET
from tools import pictured_world as world

IMAGES = PROJECT / "docs" / "images"
THEMES = ("light", "dark")
# Sharp on most screens, and still small.
SCALE, QUALITY = 1.5, 72
# Charts of Airflow move in, and a list that it asks for each second may come a moment later.
STILL_MS = 1_500
# Where Airflow keeps what its user chose: the theme, and how much of the width the grid has, in per cent.
CHOICES = """
    localStorage.setItem("theme", "{theme}");
    const layout = {{"details-panel,main-panel": {{expandToSizes: {{}}, layout: [32, 68]}}}};
    localStorage.setItem("react-resizable-panels:grid-ltr", JSON.stringify(layout));
"""
DETAILS, HANDLE = "#details-panel", 14


class Camera:
    """Takes pictures of pages, in both themes.

    :param browser: that of playwright.
    :param wanted: names of the pictures to take; empty for all.
    """

    def __init__(self, browser, wanted=()):
        self._browser = browser
        self._wanted = {*wanted}

    def wants(self, *names):
        """Tell whether any of these pictures is to be taken."""
        return not self._wanted or not self._wanted.isdisjoint(names)

    def take(self, name, url, prepare=None, *, size, scale=SCALE, above=None, part=None):
        """Take a picture in both themes.

        :param prepare: brings about on the page what is to be seen, and waits for it.
        :param above: a selector; the picture ends above what it selects.
        :param part: a selector; the picture has this alone.
        """
        if not self.wants(name):
            return
        for theme in THEMES:
            with self._page(theme, size) as page:
                page.goto(url)
                if prepare:
                    prepare(page)
                page.wait_for_timeout(STILL_MS)
                place = {"x": 0, "y": 0, **size}
                if part:
                    place = page.locator(part).bounding_box()
                if part == DETAILS:
                    place = _without_handle(place)
                if above:
                    place["height"] = page.locator(above).bounding_box()["y"]
                path = IMAGES / f"{name}-{theme}.webp"
                path.write_bytes(_photograph(page, {**place, "scale": scale}))
                print(f"{path.relative_to(PROJECT)}: {path.stat().st_size / 1024:.0f} KiB", flush=True)

    @contextmanager
    def _page(self, theme, size):
        context = self._browser.new_context(
            viewport=size,
            color_scheme=theme,
            locale="en-GB",
            timezone_id="UTC",
            reduced_motion="reduce",
        )
        context.add_init_script(f"try {{ {CHOICES.format(theme=theme)} }} catch {{}}")
        page = context.new_page()
        page.set_default_timeout(60_000)
        try:
            yield page
        finally:
            context.close()


def _without_handle(place):
    """Leave out the left edge, over which the handle between Airflow's panels reaches."""
    return {**place, "x": place["x"] + HANDLE, "width": place["width"] - HANDLE}


def _photograph(page, clip):
    """Return what is seen, as WebP: playwright's own pictures are PNG or JPEG."""
    session = page.context.new_cdp_session(page)
    answer = session.send(
        "Page.captureScreenshot",
        {"format": "webp", "quality": QUALITY, "clip": clip, "captureBeyondViewport": True},
    )
    return base64.b64decode(answer["data"])


def photograph_the_ledger(camera, airflow):
    """Take the page and the forms of connections; no DAG has run yet."""
    folders = world.write_ledger(airflow.ledger)
    page_url = f"{airflow.url}/heapbraze/page/"

    def open_in_airflow(page):
        page.get_by_role("link", name="Heap ↔ Braze").click()
        frame = page.frame_locator("iframe[title='Heap ↔ Braze']")
        frame.get_by_role("link", name="Heap: VIP customers").wait_for()

    camera.take("page-all", airflow.url, open_in_airflow, size={"width": 1300, "height": 960})
    one = f"{page_url}targets/{folders[world.POWER_USERS].name}"
    size = {"width": 1180, "height": 900}
    camera.take("page-one", one, size=size, above="table.runs tbody tr:nth-child(4)")
    # As wide as a phone, and not wider, where it is shown.
    camera.take("page-phone", page_url, size={"width": 390, "height": 760}, scale=1)

    def form_of(conn_id, label):
        def open_form(page):
            page.get_by_role("row", name=conn_id).get_by_role("button", name="Edit Connection").click()
            form = page.get_by_role("dialog")
            form.get_by_text("Extra Fields", exact=True).click()
            form.get_by_text(label, exact=True).wait_for()

        return open_form

    connections = f"{airflow.url}/connections"
    form = {"size": {"width": 1000, "height": 1200}, "part": "[role=dialog]"}
    camera.take("connection-braze", connections, form_of("braze_default", "Partner name"), **form)
    camera.take("connection-heap", connections, form_of("heap_default", "Region"), **form)


def photograph_the_nights(camera, airflow, runs):
    """Take the grid, the log of what went on, and its report."""
    failed, resumed = (
        f"{airflow.url}/dags/{DAG_ID}/runs/{quote(runs[night], safe='')}"
        for night in (world.FAILED_NIGHT, world.KILLED_NIGHT)
    )

    def expand(page):
        page.get_by_role("button", name="Expand all task groups").click()
        page.locator("#main-panel").get_by_text("verify").wait_for()
        page.locator("#details-panel").get_by_text("Upstream Failed").first.wait_for()

    def wait_for_log(page):
        page.get_by_text("acknowledged").wait_for()

    camera.take("grid", failed, expand, size={"width": 1400, "height": 780})
    log = f"{resumed}/tasks/cohort.import/mapped/0?try_number=2"
    camera.take("resumed-log", log, wait_for_log, size={"width": 1600, "height": 840}, part=DETAILS)

    report = airflow.records(f"targets/cohort-{world.POWER_USERS}-*/reports")[-1]
    file = airflow.home / "report.html"
    file.write_bytes(membership_report(report))
    camera.take("report", file.as_uri(), size={"width": 1240, "height": 600})


def photograph_the_approval(camera, airflow):
    """Take what a person is asked."""
    task = f"dags/{world.APPROVAL_DAG_ID}/runs/{world.APPROVED_RUN_ID}/tasks/approval"
    url = f"{airflow.url}/{task}/required_actions"

    def wait_for_the_question(page):
        page.get_by_role("link", name="Required Action").wait_for()
        page.get_by_role("button", name="Approve").wait_for()

    camera.take("approval", url, wait_for_the_question, size={"width": 1600, "height": 780}, part=DETAILS)


def main():
    """Make the pictures; those that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="pictures to make; all, where none is named")
    wanted = parser.parse_args().names
    if CHROMIUM is None:
        sys.exit("It needs chromium: apt-get install chromium")
    try:
        world.HOME.mkdir()
    except FileExistsError:
        sys.exit(f"{world.HOME} is there already. Remove it, if nobody needs it.")
    try:
        with sync_playwright() as playwright, world.airflow_in(world.HOME) as airflow:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
            camera = Camera(browser, wanted)
            photograph_the_ledger(camera, airflow)
            shutil.rmtree(airflow.ledger)
            # Nights take minutes.
            if camera.wants("grid", "resumed-log", "report"):
                photograph_the_nights(camera, airflow, world.run_the_nights(airflow))
            if camera.wants("approval"):
                world.ask_for_approval(airflow)
                photograph_the_approval(camera, airflow)
            browser.close()
    finally:
        shutil.rmtree(world.HOME, ignore_errors=True)


if __name__ == "__main__":
    main()
