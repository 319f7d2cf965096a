"""Many cohorts at once on four workers, at Braze's true rate, beside what one would do otherwise.

Braze counts by the hour; here the sandbox counts by the minute, at the same rate: a run of minutes sees
several limits, and each request above one is refused and counted. Answers take 250 ms.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

WORKERS = 4
CONNECTIONS = 24
PEOPLE_PER_REQUEST = 1000
PERIOD = 60.0
REQUESTS_PER_SECOND = 250_000 / 3600


class Cohort(NamedTuple):
    """A cohort to import.

    :param starts: seconds from the beginning at which its task is ready.
    """

    name: str
    requests: int
    starts: float


class Setting(NamedTuple):
    """How the workers share.

    :param slots: deliveries at the same time in each worker.
    :param limit: requests in a period that each client keeps.
    """

    title: str
    workers: int
    slots: int
    limit: int
    shared: bool


def deliver(url, limit, store, cohort, cpu):
    """Send a cohort's requests."""
    import requests

    from airflow_provider_heapbraze.clients.braze import (
        BrazeClient,
        BrazeKeys,
        BrazeLimits,
        CohortChange,
        Limit,
    )
    from airflow_provider_heapbraze.clients.transport import Transport
    from airflow_provider_heapbraze.sandbox import connections

    keys = BrazeKeys(partner_api_key=connections.PARTNER_API_KEY, data_import_key=connections.DATA_IMPORT_KEY)
    limits = BrazeLimits(cohort=Limit(limit, PERIOD))
    people = [f"{cohort.name}-{number:09}" for number in range(PEOPLE_PER_REQUEST)]
    left = [cohort.requests]
    with BrazeClient(Transport(requests.Session(), url), keys, limits, store=store) as client:
        acquire = client.cohort_budget.acquire

        def measured(interrupted):
            before = time.thread_time()
            try:
                return acquire(interrupted)
            finally:
                cpu.append(time.thread_time() - before)

        client.cohort_budget.acquire = measured

        def send(_):
            client.change_cohort(cohort.name, [CohortChange(people, [], [], should_remove=False)])
            left[0] -= 1
            client.cohort_budget.expect(left[0])

        client.cohort_budget.expect(cohort.requests)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(send, range(cohort.requests)))


def work(url, setting, cohorts, folder, began):
    """Import cohorts as their tasks become ready, so many at a time; in a process of its own."""
    from airflow_provider_heapbraze.clients.budget_stores import FileStore
    from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK

    slots, cpu, ended = threading.Semaphore(setting.slots), [], {}

    def run(cohort):
        store = FileStore(lambda: Path(folder), SYSTEM_CLOCK) if setting.shared else None
        try:
            deliver(url, setting.limit, store, cohort, cpu)
            ended[cohort.name] = time.monotonic() - began
        finally:
            slots.release()

    with ThreadPoolExecutor(len(cohorts) or 1) as pool:
        tasks = []
        for cohort in sorted(cohorts, key=lambda cohort: cohort.starts):
            time.sleep(max(0.0, began + cohort.starts - time.monotonic()))
            slots.acquire()
            tasks.append(pool.submit(run, cohort))
        for task in tasks:
            task.result()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return ended, sum(cpu), usage.ru_utime + usage.ru_stime


def measure(sandbox, setting, cohorts):
    """Run all cohorts; print how it went."""
    sandbox.reset()
    sandbox.faults(latency=0.25)
    sandbox.settings(limits={"cohorts": {"limit": round(REQUESTS_PER_SECOND * PERIOD), "seconds": PERIOD}})
    # The window of the clock is the same for each way: it begins with one.
    time.sleep(PERIOD - time.time() % PERIOD)
    began = time.monotonic()
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(setting.workers, context) as pool:
        tasks = [
            pool.submit(work, sandbox.url, setting, cohorts[number :: setting.workers], folder, began)
            for number in range(setting.workers)
        ]
        answers = [task.result() for task in tasks]
    seconds = time.monotonic() - began
    ended = {name: at for answer in answers for name, at in answer[0].items()}
    requests = sum(cohort.requests for cohort in cohorts)
    small = [cohort for cohort in cohorts if cohort.name.startswith("small")]
    waits = sorted(ended[cohort.name] - cohort.starts for cohort in small)
    order = sorted(ended, key=ended.get)
    places = [order.index(cohort.name) + 1 for cohort in small]
    budget, everything = sum(answer[1] for answer in answers), sum(answer[2] for answer in answers)
    print(f"\n{setting.title}")
    used = requests / seconds / REQUESTS_PER_SECOND
    print(f"  {requests:,} requests in {seconds:,.1f} s: {used:.1%} of the limit")
    print(f"  refused with 429: {sandbox.state()['limits_broken'].get('cohorts', 0)}")
    print(f"  small cohorts were done after {', '.join(f'{wait:,.1f}' for wait in waits)} s")
    print(f"  as number {', '.join(map(str, sorted(places)))} of {len(order)}")
    each = budget / requests * 1e6
    print(f"  CPU of the budget: {budget:.2f} s of {everything:.1f} s, {each:,.0f} µs a request")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cohorts", type=int, default=40)
    options.add_argument("--members", type=int, default=250_000, help="of each cohort")
    options.add_argument("--small", type=int, default=5, help="cohorts of 10,000 that come meanwhile")
    options.add_argument("--only-shared", action="store_true", help="and not what one would do otherwise")
    chosen = options.parse_args()

    from airflow_provider_heapbraze.sandbox.server import SandboxServer

    limit = round(REQUESTS_PER_SECOND * PERIOD)
    large = [Cohort(f"large-{number}", chosen.members // 1000, 0.0) for number in range(chosen.cohorts)]
    fastest = sum(cohort.requests for cohort in large) / REQUESTS_PER_SECOND
    small = [
        Cohort(f"small-{number}", 10, fastest * 0.8 * (number + 1) / (chosen.small + 1))
        for number in range(chosen.small)
    ]
    settings = [
        Setting("a shared budget, all at once", WORKERS, len(large) + len(small), limit, shared=True),
        Setting("a pool of one slot", 1, 1, limit, shared=False),
        Setting("each worker with a quarter of the limit", WORKERS, 1, limit // WORKERS, shared=False),
    ]
    with SandboxServer() as sandbox:
        for setting in settings[: 1 if chosen.only_shared else None]:
            measure(sandbox, setting, [*large, *small])


if __name__ == "__main__":
    main()
