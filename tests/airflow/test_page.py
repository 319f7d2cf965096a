"""The page and its API: who sees what, as Airflow's own auth manager says it."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import uvicorn
from airflow.api_fastapi import app as airflow_app
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.utils.session import create_session
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from playwright.sync_api import expect

from airflow_provider_heapbraze import glances, plugin
from airflow_provider_heapbraze.membership.guards import Breach
from airflow_provider_heapbraze.membership.ledger import found_target
from airflow_provider_heapbraze.overview import index
from airflow_provider_heapbraze.overview.keeping import keep_in_view
from airflow_provider_heapbraze.plugin.views import RUNBOOK
from tests.ui.test_airflow_ui import CHROMIUM, browser
from tests.unit.overview import ledgers

HOSTILE = "<script>alert(1)</script>"
WAITING = "import/scheduled__2026-11-25/import"
BREACHES = [
    Breach("max_removed_share", 0.9, 0.2, "of the people held would be removed"),
    Breach("max_added", 12000, 5000, "people would be added"),
]
BOTH, NONE = "sees-both", "sees-none"
VIEWS = ("", "targets/{folder}", "targets/{folder}/run?id={run}", "api/records", "api/targets/{folder}")


class ByDag(SimpleAuthManager):
    """Users are called after the DAG that they may see."""

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        return method == "GET" and details is not None and user.username in {details.id, BOTH}


@pytest.fixture(scope="module")
def dags(migrated_database):
    """Make the metadata database of this process, with two DAGs."""
    database = Path(os.environ["AIRFLOW_HOME"]) / "airflow.db"
    database.write_bytes(migrated_database.read_bytes())
    with create_session() as session:
        session.add(DagBundleModel(name="dags"))
        session.flush()
        for dag_id in ("import", "other"):
            session.add(DagModel(dag_id=dag_id, bundle_name="dags", fileloc=f"/{dag_id}.py"))
    yield
    database.unlink()


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """Give a ledger with a cohort of each DAG."""
    root = tmp_path / "ledger"
    monkeypatch.setenv("AIRFLOW__HEAPBRAZE__LEDGER", root.as_uri())
    monkeypatch.setattr(index, "FRESH_SECONDS", 0.0)
    ledgers.cohort(root, "of-import", name=HOSTILE, dag="import", nights=3)
    ledgers.cohort(root, "of-other", name="Other", dag="other", nights=3)
    return root


@pytest.fixture
def auth_manager(dags, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", f"{__name__}.{ByDag.__name__}")
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a-secret-that-signs-tokens-of-tests" * 2)
    yield airflow_app.create_auth_manager()
    airflow_app.purge_cached_app()


@pytest.fixture
def app(auth_manager, ledger):
    """Mount what the plugin offers under a proxy's path, as Airflow's server does."""
    app = FastAPI(root_path="/proxied")
    for offered in importlib.reload(plugin).HeapBrazePlugin.fastapi_apps:
        app.mount(offered["url_prefix"], offered["app"])
    return app


def token_of(auth_manager, user):
    return auth_manager.generate_jwt(SimpleAuthManagerUser(username=user, role="VIEWER"))


@pytest.fixture
def served(app):
    """Serve it; return the address. Airflow's proxies leave the path as it is."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # who comes before the server does waits
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def get(app, auth_manager):
    """Ask that server."""

    async def ask(path, headers, cookies):
        # A fault of the app is what the client sees, too: a server error.
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        base = "http://airflow/proxied/heapbraze/page/"
        async with httpx.AsyncClient(transport=transport, base_url=base, cookies=cookies) as client:
            return await client.get(path, headers=headers)

    def get(path, user=None, token=None, by_cookie=False):
        if user:
            token = token_of(auth_manager, user)
        headers = {"Authorization": f"Bearer {token}"} if token and not by_cookie else {}
        return asyncio.run(ask(path, headers, {"_token": token} if by_cookie else {}))

    return get


def folder_of(ledger, cohort_id):
    return next((ledger / "targets").glob(f"cohort-{cohort_id}-*")).name


def views(ledger, cohort_id="of-import", dag="import"):
    run = quote(f"{dag}/scheduled__2026-11-24/import", safe="")
    return [view.format(folder=folder_of(ledger, cohort_id), run=run) for view in VIEWS]


def test_an_anonymous_request_is_refused(get, ledger):
    for view in views(ledger):
        answer = get(view)
        assert answer.status_code == 401
        assert "of-import" not in answer.text.replace(view, "").replace(quote(view, safe=""), "")
    assert get("api/records").json() == {"detail": "Not authenticated"}


def test_who_is_not_logged_in_is_led_to_the_login(get, ledger):
    answer = get(f"targets/{folder_of(ledger, 'of-import')}")
    assert 'href="../../../api/v2/auth/login?next=%2Fproxied%2Fheapbraze%2Fpage%2Ftargets%2F' in answer.text


def test_a_token_that_is_none_is_refused(get, ledger):
    for view in views(ledger):
        assert get(view, token="none-of-airflows").status_code in {401, 403}


def test_who_sees_no_dag_sees_nothing(get, ledger):
    assert get("api/records", NONE).json() == []
    page = get("", NONE)
    assert (page.status_code, "of-import" in page.text, "Other" in page.text) == (200, False, False)
    for view in views(ledger):
        if "targets" in view:
            assert get(view, NONE).status_code == 404


def test_who_sees_both_dags_sees_all(get, ledger):
    assert {record["key"] for record in get("api/records", BOTH).json()} == {"of-import", "of-other"}
    for view in views(ledger):
        assert get(view, BOTH).status_code == 200


def test_who_sees_one_dag_sees_its_cohort(get, ledger):
    (record,) = get("api/records", "import").json()
    assert (record["key"], record["state"]) == ("of-import", "whole")
    for view in views(ledger):
        assert get(view, "import").status_code == 200
    for view in views(ledger, "of-other", "other"):
        answer = get(view, "import")
        assert answer.status_code == 404 or "of-other" not in answer.text


def test_runs_of_another_dag_are_not_shown(get, ledger):
    """A cohort that two DAGs write shows to each what is its own."""
    folder = folder_of(ledger, "of-import")
    for path in (ledger / "targets" / folder / "log").glob("0000000[12].json"):
        path.write_text(path.read_text().replace('"import/', '"other/'))
    runs = get(f"api/targets/{folder}", "import").json()["runs"]
    assert [run["run_id"].partition("/")[0] for run in runs] == ["import", "import"]
    run = quote("other/scheduled__2026-11-22/import", safe="")
    assert get(f"targets/{folder}/run?id={run}", "import").status_code == 404
    assert get(f"targets/{folder}/run?id={run}", BOTH).status_code == 200


def test_the_cookie_of_airflows_ui_is_enough(get):
    assert len(get("api/records", "import", by_cookie=True).json()) == 1


@pytest.mark.parametrize(
    "path",
    [
        "targets/nothing",
        "nothing/nothing",
        "api/targets/nothing",
        "targets/..%2f..",
        "targets/%2e%2e",
        "targets/%2e",
        "targets/..%5c..",
        "targets/%00",
        "targets/.hidden",
        "..%2f../targets",
        "api/matches/some",
        "api/targets/..%2fglances",
        "static/..%2f..%2frendering.py",
        "static/%2e%2e/rendering.py",
    ],
)
def test_what_is_not_there(get, ledger, path):
    """Nothing outside of the two folders of records can be asked for, whatever is there."""
    (ledger / "targets" / ".hidden").mkdir()
    (ledger / "matches" / "some").mkdir(parents=True)
    assert get(path, BOTH).status_code == 404


def test_a_run_without_an_id_is_not_there(get, ledger):
    path = f"targets/{folder_of(ledger, 'of-import')}/run"
    assert (get(path).status_code, get(path, BOTH).status_code) == (401, 404)


@pytest.mark.parametrize("run", ["import/../import", "import/a/../b", 'import/"><b>/c', "import/a/b/c/d"])
def test_a_run_that_nobody_made_leads_nowhere(get, ledger, run):
    html = get(f"targets/{folder_of(ledger, 'of-import')}/run?id={quote(run, safe='')}", "import").text
    assert "/../import" not in html.replace(run, "")
    assert 'href="../../../../dags/import/runs/..' not in html
    assert "<b>" not in html


def test_a_cohort_that_moved_to_another_dag(get, ledger):
    """It belongs to the DAG of its newest run, and what runs of the other one left is still that DAG's."""
    folder = ledger / "targets" / folder_of(ledger, "of-import")
    for number in (1, 2, 3, 4):
        path = folder / f"log/{number:08d}.json"
        path.write_text(path.read_text().replace('"import/', '"other/'))
    for path in (folder / "verifications").iterdir():
        path.write_text(path.read_text().replace('"import/', '"other/'))
    for path in (ledger / "glances").iterdir():
        path.unlink()
    of_both = next(one for one in get("api/records", BOTH).json() if one["key"] == "of-import")
    (of_import,) = get("api/records", "import").json()
    assert (len(of_both["past"]), of_both["verified"]["wrong"]) == (3, 0)
    assert (len(of_import["past"]), of_import["verified"]) == (1, None)
    assert "of-import" not in {one["key"] for one in get("api/records", "other").json()}
    detail = get(f"api/targets/{folder.name}", "import").json()
    assert (len(detail["past"]), detail["verified"], len(detail["runs"])) == (1, None, 1)
    assert "other/" not in get(f"targets/{folder.name}", "import").text
    assert get(f"targets/{folder.name}", "other").status_code == 404


def test_a_record_that_cannot_be_understood_does_not_take_the_others_away(get, ledger):
    folder = ledger / "targets" / folder_of(ledger, "of-other")
    for path in (ledger / "glances").iterdir():
        path.unlink()
    whole = json.loads((folder / "log" / "00000006.json").read_text())
    for entry in (
        "[]",
        '{"format": 1, "kind": "commit"}',
        *(
            json.dumps({**whole, key: wrong})
            for key in ("run_id", "size", "name", "report")
            for wrong in (7.5, [], {})
        ),
    ):
        (folder / "log" / "00000006.json").write_text(entry)
        (ledger / "targets" / "by-hand").mkdir(exist_ok=True)
        assert {one["key"] for one in get("api/records", BOTH).json()} >= {"of-import"}
        assert get("", BOTH).status_code == 200


def test_the_api_gives_what_the_page_shows(get, ledger):
    """Whole reports and plans stay in the ledger."""
    (run, *_) = get(f"api/targets/{folder_of(ledger, 'of-import')}", BOTH).json()["runs"]
    assert not {"report", "plan", "fingerprint"} & set(run)
    assert run["waterfall"]["acknowledged"] == run["adds"] + run["removes"]


def test_a_run_that_wrote_nothing(get, ledger):
    run = quote("import/scheduled__2027-01-01/import", safe="")
    answer = get(f"targets/{folder_of(ledger, 'of-import')}/run?id={run}", "import")
    assert (answer.status_code, "Nothing was sent." in answer.text) == (200, True)


def wait_for_a_plan(ledger, breaches, cohort_id="of-import"):
    """Leave a plan that is newer than the log, and what guards found about it."""
    folder = ledger / "targets" / folder_of(ledger, cohort_id)
    plan = json.loads((folder / "log" / "00000005.json").read_text())
    plan |= {"number": 7, "plan_id": "00000007-0123456789ab", "run_id": WAITING}
    ledgers.write(folder / "plans" / plan["plan_id"] / "plan.json", plan)
    if breaches:
        record = {"at": "2026-11-25T02:30:00+00:00", "breaches": [vars(breach) for breach in breaches]}
        ledgers.write(folder / "plans" / plan["plan_id"] / "judgements" / "00000001.json", record)
    keep_in_view(found_target(ledger, folder.name))
    return folder.name


def waiting_views(folder):
    return [f"targets/{folder}", f"targets/{folder}/run?id={quote(WAITING, safe='')}"]


def test_a_plan_that_guards_stopped_says_which(get, ledger):
    folder = wait_for_a_plan(ledger, BREACHES)
    for view in waiting_views(folder):
        html = get(view, BOTH).text
        assert "it passes guards, and was stopped or waits for approval." in html
        assert "90 % of the people held would be removed; the limit is 20 %" in html
        assert "12,000 people would be added; the limit is 5,000" in html
        for guard in ("max_removed_share", "max_added"):
            assert f'href="{RUNBOOK}#{guard}"' in html
        assert "<code>guards=Guards(max_removed_share=0.9, max_added=12000)</code>" in html
        assert HOSTILE not in html
    (record,) = get("api/records", "import").json()
    assert (record["state"], record["waiting"]["run_id"]) == ("a plan waits", WAITING)
    (run, *_) = get(f"api/targets/{folder}", BOTH).json()["runs"]
    assert [breach["guard"] for breach in run["breaches"]] == ["max_removed_share", "max_added"]


def test_a_plan_of_which_no_guard_is_known(get, ledger):
    for view in waiting_views(wait_for_a_plan(ledger, [])):
        html = get(view, BOTH).text
        assert "or a guard stopped it: its task's log says which" in html
        assert "Guards(" not in html


def test_a_plan_that_waits_is_counted_and_called_as_the_filter_calls_it(get, ledger):
    folder = wait_for_a_plan(ledger, BREACHES)
    html = get("", BOTH).text
    assert re.search(r'data-state="a plan waits">\s*<th[^>]*><a href="targets/' + folder, html)
    sums = html.partition('class="sums"')[2].partition("</p>")[0]
    assert " ".join(re.sub("<[^>]*>", " ", sums.partition(">")[2]).split()) == (
        "✓ whole 1 ◐ a plan waits 1 ◐ unfinished 0 ✕ damaged 0"
    )
    assert re.findall(r"<option>(.*?)</option>", html) == ["whole", "a plan waits", "unfinished", "damaged"]


def test_runs_of_one_day_have_times_at_their_charts(get, ledger):
    day = datetime(2026, 11, 24, 2, 30, tzinfo=UTC)
    for minutes, cohort_id, ends in (
        (30, "minutes", ("2026-11-24 02:30 UTC", "2026-11-24 03:00 UTC")),
        (0.5, "seconds", ("2026-11-24 02:30:00 UTC", "2026-11-24 02:30:30 UTC")),
        (24 * 60, "days", ("2026-11-24", "2026-11-25")),
    ):
        folder = ledgers.cohort(ledger, cohort_id, dag="import", nights=2)
        (report,) = folder.glob("reports/00000004-*.json")
        record = json.loads(report.read_text())
        report.write_text(
            json.dumps({**record, "finished_at": (day + timedelta(minutes=minutes)).isoformat()})
        )
        (first,) = folder.glob("reports/00000002-*.json")
        first.write_text(json.dumps({**json.loads(first.read_text()), "finished_at": day.isoformat()}))
        html = get(f"targets/{folder.name}", BOTH).text
        assert re.findall(r'class="date(?: last)?"[^>]*>([^<]*)<', html)[:2] == list(ends)


def test_an_open_run_says_since_when_and_what_is_settled(get, ledger):
    folder = ledger / "targets" / folder_of(ledger, "of-import")
    plan = json.loads((folder / "log" / "00000005.json").read_text())
    held = json.loads((folder / "log" / "00000006.json").read_text())
    plan |= {"number": 7, "plan_id": "00000007-0123456789ab", "run_id": WAITING, "adds": 40, "removes": 0}
    plan |= {"base": held["snapshot"], "held": held["size"]}
    plan_folder = folder / "plans" / plan["plan_id"]
    ledgers.write(plan_folder / "plan.json", plan)
    ledgers.write(folder / "log" / "00000007.json", plan)
    settled = {"acknowledged": [[0, 24]], "rejected": [], "named": True, "at": 1.0}
    ledgers.write(plan_folder / "settled" / "00000001-00000001.json", settled)
    glances.announce(folder, 7)
    html = get(f"targets/{folder.name}", BOTH).text
    assert f"<dt>Size before the open run</dt><dd>{held['size']:,}</dd>" in html
    assert "<dt>Settled since</dt><dd>24 of 40 changes</dd>" in html
    assert ">When</th>" in html
    assert 'data-label="When">began 2026-11-24 02:30 UTC</td>' in html
    assert 'data-label="When">2026-11-24 02:30 UTC</td>' in html
    assert f"{held['size']:,}<small>before this run</small>" in get("", BOTH).text


def test_a_hostile_name_is_text(get, ledger):
    for view in views(ledger)[:3]:
        answer = get(view, BOTH)
        assert HOSTILE not in answer.text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text


def test_links_hold_behind_a_proxy(get, ledger):
    for view in views(ledger)[:3]:
        html = get(view, BOTH).text
        targets = [part.partition('"')[0] for part in html.split(' href="')[1:] + html.split(' src="')[1:]]
        assert targets
        outside = {target for target in targets if "://" in target}
        assert outside <= {"https://dashboard-01.braze.com", "https://heapanalytics.com/app"}
        assert not [target for target in targets if target.startswith("/")]


def test_headers_let_nothing_foreign_in(get, ledger):
    for view in [*views(ledger), "static/page.css", "static/page.js"]:
        headers = get(view, BOTH).headers
        assert headers["content-security-policy"].startswith(
            "default-src 'none'; style-src 'self'; script-src 'self'"
        )
        assert headers["x-content-type-options"] == "nosniff"


def test_a_page_holds_no_script_or_style_of_its_own(get, ledger):
    for view in views(ledger)[:3]:
        html = get(view, BOTH).text
        assert " style=" not in html
        assert "<style" not in html
        assert " onclick" not in html
        assert html.count("<script") == html.count("<script src=") == 1


def test_a_ledger_that_cannot_be_read_is_said(get, monkeypatch):
    monkeypatch.setenv("AIRFLOW__HEAPBRAZE__LEDGER", "nonsense://bucket/ledger")
    for view in ("", "api/records"):
        answer = get(view, BOTH)
        assert (answer.status_code, "Airflow knows no storage for nonsense://" in answer.text) == (503, True)
    monkeypatch.setenv("AIRFLOW__HEAPBRAZE__LEDGER", "file:///proc/self/mem")
    assert get("", BOTH).status_code in {200, 503}


def test_an_empty_ledger_says_what_to_do(get, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__HEAPBRAZE__LEDGER", (tmp_path / "empty").as_uri())
    html = get("", BOTH).text
    assert "There is nothing here that you may see" in html
    assert "file://" not in html, "where it is is nobody's business who sees nothing"


def test_nobody_is_named(get, ledger):
    """Numbers of people are shown, and no person: their values are in the Parquet files alone."""
    record = get(f"api/targets/{folder_of(ledger, 'of-import')}", BOTH).json()
    assert set(record) >= {"size", "runs", "next", "findings"}
    assert "external_id" not in json.dumps(record)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")
def test_in_a_browser_everybody_sees_what_they_may(served, auth_manager, ledger):
    """Behind a proxy's path, with the cookie of Airflow's UI; what is refused is readable, too."""
    page_url = f"{served}/proxied/heapbraze/page/"
    of_other = f"{page_url}targets/{folder_of(ledger, 'of-other')}"
    with browser() as page:
        page.goto(of_other)
        expect(page.get_by_role("heading", name="Unauthorized")).to_be_visible()
        expect(page.get_by_role("link", name="Log in to Airflow")).to_be_visible()
        assert Axe().run(page).response["violations"] == []
        token = token_of(auth_manager, "import")
        page.context.add_cookies([{"name": "_token", "value": token, "url": served}])
        page.goto(of_other)
        expect(page.get_by_role("heading", name="Not Found")).to_be_visible()
        assert Axe().run(page).response["violations"] == []
        page.goto(page_url)
        expect(page.locator(".list tbody tr")).to_have_count(1)
        page.get_by_role("link", name=HOSTILE).click()
        page.get_by_role("link", name="import/scheduled__2026-11-24/import", exact=True).first.click()
        expect(page.get_by_role("heading", name=f"{HOSTILE}: a run")).to_be_visible()
        token = token_of(auth_manager, NONE)
        page.context.add_cookies([{"name": "_token", "value": token, "url": served}])
        page.goto(page_url)
        expect(page.get_by_text("There is nothing here that you may see")).to_be_visible()
        assert Axe().run(page).response["violations"] == []


def test_the_view_of_airflows_navigation_is_served(get):
    (view,) = plugin.HeapBrazePlugin.external_views
    assert view["name"] == "Heap ↔ Braze"
    assert not view["href"].startswith("/")
    assert get("http://airflow/proxied/" + view["href"], BOTH).status_code == 200
