"""What one user sees, and the HTML of it.

Links are relative, so that they hold behind a proxy that serves Airflow under a path.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.exceptions import HTTPException

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.braze_account import PARTNER_LIMIT, TRACK_LIMIT, dashboard_of
from airflow_provider_heapbraze.clients.errors import RUNBOOK
from airflow_provider_heapbraze.clients.heap import PROPERTY_LIMIT
from airflow_provider_heapbraze.ledger_check.account import DAMAGED, UNFINISHED, WAITS, WHOLE
from airflow_provider_heapbraze.ledger_check.sources import GROUP as SOURCES
from airflow_provider_heapbraze.ledger_check.targets import GROUP as TARGETS
from airflow_provider_heapbraze.overview.summary import DRAFTED, FINISHED, dag_of
from airflow_provider_heapbraze.pages import charts
from airflow_provider_heapbraze.pages.rendering import STATIC, number, percent, render, when

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_heapbraze.overview.index import Detail, Index
    from airflow_provider_heapbraze.overview.summary import Run, Summary

HEAP = "https://heapanalytics.com/app"
LIMITS = {"cohort": PARTNER_LIMIT, "attribute": TRACK_LIMIT, "property": PROPERTY_LIMIT}
NOT_FOUND = (
    "There is nothing here, or you may not see it. The page shows the ledger that Airflow's configuration "
    "names as [heapbraze] ledger."
)
ORDER = (DAMAGED, UNFINISHED, WAITS, WHOLE)
# A date, a time to the minute, a time to the second, of ISO 8601.
DAY, MINUTE, SECOND = 10, 16, 19
# <DAG>/<run>/<task>, and a map index where the task is mapped.
TASK_PARTS = (3, 4)


@dataclass(frozen=True)
class View:
    """What one user sees.

    :param dags: which DAGs the user may see.
    """

    index: Index
    dags: Collection[str]

    def summaries(self) -> list[Summary]:
        """Return the records that this user sees, those first that need somebody."""
        seen = [
            summary.seen_by(self.dags) for summary in self.index.summaries() if summary.dag_id in self.dags
        ]
        return sorted(seen, key=_urgency)

    def detail(self, group: str, folder: str) -> Detail:
        """Return a record with those of its runs that this user sees.

        :raises HTTPException: there is none, or the user does not see it: the same answer.
        """
        summary = self.index.summary(group, folder)
        if summary is None or summary.dag_id not in self.dags:
            raise not_found()
        detail = self.index.detail(summary)
        runs = [run for run in detail.runs if run.dag_id in self.dags]
        return replace(detail, summary=detail.summary.seen_by(self.dags), runs=runs)

    def run(self, group: str, folder: str, run_id: str) -> tuple[Detail, Run | None]:
        """Return a record and what a run did to it.

        :raises HTTPException: there is no such record, or the user does not see it or the run's DAG.
        """
        detail = self.detail(group, folder)
        if dag_of(run_id) not in self.dags:
            raise not_found()
        return detail, self.index.run(group, folder, run_id)


def _urgency(summary: Summary) -> tuple[int, str]:
    return ORDER.index(summary.shown_state), summary.name.lower()


def overview(view: View) -> str:
    """Return the page of all records."""
    summaries = view.summaries()
    states = [summary.shown_state for summary in summaries]
    return rendered(
        "list.html",
        depth=0,
        targets=[summary for summary in summaries if summary.group == TARGETS],
        sources=[summary for summary in summaries if summary.group == SOURCES],
        counts={state: states.count(state) for state in ORDER},
        ledger=storage.uri(view.index.root),
    )


def record(detail: Detail) -> str:
    """Return the page of one record."""
    ended = [run for run in detail.runs if run.state == FINISHED and run.report]
    return rendered(
        "detail.html",
        depth=1,
        runs=detail.runs,
        ended=ended,
        account=detail.account,
        drafted=next((run for run in detail.runs if run.state == DRAFTED), None),
        **_charts(detail.summary, ended[::-1]),
        **_about(detail.summary),
    )


def one_run(run_id: str, detail: Detail, run: Run | None) -> str:
    """Return the page of one run; of one that wrote nothing, too."""
    return rendered(
        "run.html", depth=2, run_id=run_id, last=run, next=detail.account.next, **_about(detail.summary)
    )


def _charts(summary: Summary, ended: list[Run]) -> dict[str, Any]:
    """Draw the runs that ended, oldest first."""
    if not ended:
        return {}
    reports = [run.report or {} for run in ended]
    values = [report["sent"] if summary.group == SOURCES else report["size"] for report in reports]
    dates = _told_apart([run.at for run in ended])
    low, high = number(min(values)), number(max(values))
    said = f"from {low} to {high} over {len(ended)} runs, now {number(values[-1])}"
    drawn = {
        "size_chart": charts.sizes(
            values,
            [f"{when(run.at)}: {number(value)}" for run, value in zip(ended, values, strict=True)],
            dates,
            f"Line: {said}. The table of runs below has every number.",
        )
    }
    if summary.group == SOURCES:
        return drawn
    adds, removes = [run.adds or 0 for run in ended], [run.removes or 0 for run in ended]
    labels = [
        f"{when(run.at)}: {number(run.adds)} entered, {number(run.removes)} left, "
        f"{percent(run.match_rate)} matched"
        for run in ended
    ]
    said = f"{number(sum(adds))} entered and {number(sum(removes))} left over {len(ended)} runs"
    caption = f"Bars: {said}. The table of runs below has every number."
    return {**drawn, "change_chart": charts.changes(adds, removes, labels, dates, caption)}


def _told_apart(times: list[str]) -> list[str]:
    """Return dates; of runs that are all of one day, times."""
    length = next((length for length in (DAY, MINUTE) if times[0][:length] != times[-1][:length]), SECOND)
    if len(times) == 1 or length == DAY:
        return [at[:DAY] for at in times]
    return [f"{at[:length].replace('T', ' ')} UTC" for at in times]


def _about(summary: Summary) -> dict[str, Any]:
    limit = LIMITS.get(summary.kind)
    return {
        "summary": summary,
        "limit": limit and limit.requests / limit.seconds,
        "dashboard": dashboard_of(summary.host),
        "heap": HEAP,
        "runbook": RUNBOOK,
        "task_url": _task_url,
    }


def _task_url(run_id: str) -> str:
    """Return the place of a run's task instance in Airflow's UI, from this page; empty where it has none."""
    parts = [quote(part, safe="") for part in run_id.split("/")]
    # What a browser would take for a folder above names nothing in Airflow.
    if len(parts) not in TASK_PARTS or {"", ".", ".."} & set(parts):
        return ""
    dag_id, dag_run_id, task_id, *map_index = parts
    mapped = f"/mapped/{map_index[0]}" if map_index else ""
    return f"../../dags/{dag_id}/runs/{dag_run_id}/tasks/{task_id}{mapped}"


def as_json(detail: Detail) -> dict[str, Any]:
    """Return what the page of one record shows, for a program."""
    return {
        **detail.summary.shown(),
        "next": detail.account.next,
        "findings": [asdict(finding) for finding in detail.account.findings],
        "runs": [run.shown() for run in detail.runs],
    }


def rendered(template: str, *, depth: int, **values: Any) -> str:
    """Return a page.

    :param depth: how many folders below the page's address it is.
    """
    return render(template, up="../" * depth, version=_version(), **values)


@functools.cache
def _version() -> str:
    """Name the style sheet and the script as they are now: a browser may keep them until they change."""
    contents = b"".join(path.read_bytes() for path in sorted(STATIC.iterdir()))
    return hashlib.sha256(contents).hexdigest()[:12]


def not_found() -> HTTPException:
    """Return the answer where there is nothing, and where there is what this user may not see."""
    return HTTPException(HTTPStatus.NOT_FOUND, NOT_FOUND)
