"""The page over a ledger of 1,000 cohorts and 365 runs each: seconds to every view.

::

    python benchmarks/overview.py [cohorts] [runs]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from airflow_provider_heapbraze.overview.index import FRESH_SECONDS, Index
from airflow_provider_heapbraze.plugin import views
from tests.unit.overview import ledgers


class Everything:
    """The DAGs of somebody who may see all."""

    def __contains__(self, dag_id):
        return True


def seconds(what, times=1):
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        what()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def main(cohorts=1000, runs=365):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(cohorts):
            ledgers.cohort(root, f"cohort-{number:04}", nights=runs, size=2_000, full=number == 0)
        first = next((root / "targets").glob("cohort-cohort-0000-*")).name
        view = views.View(Index(root), Everything())
        print(f"{cohorts:,} cohorts of {runs:,} runs; seconds")

        def show(what, view_of, times=1):
            print(f"{what:<36}{seconds(view_of, times):.3f}", flush=True)

        def list_():
            return views.overview(view)

        def run():
            return views.one_run(run_id, *view.run("targets", first, run_id))

        show("the list, for the first time", list_)
        show("the list, asked for again at once", list_)
        time.sleep(FRESH_SECONDS)
        show("the list, brought up to date", list_)
        show("one cohort, 100 runs", lambda: views.record(view.detail("targets", first)), 5)
        run_id = view.detail("targets", first).runs[0].run_id
        show("one run", run, 5)
        print(f"the list has {len(list_()) / 1e6:.2f} MB of HTML")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
