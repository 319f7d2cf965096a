"""An export against a sandbox, in this process or in one that is killed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import requests

from airflow_provider_heapbraze.clients.event_budget import EventBudget, EventLimits
from airflow_provider_heapbraze.clients.heap import HeapClient
from airflow_provider_heapbraze.clients.transport import RetryPolicy, Transport
from airflow_provider_heapbraze.events.export import Export, ExportRequest
from airflow_provider_heapbraze.events.mapping import EventMapping, MappingRules
from airflow_provider_heapbraze.events.source_ledger import ExportTarget, SourceLedger

APP_ID = "sandbox-heap-app-id"
QUICK = RetryPolicy(attempts=6, first=0.05, cap=0.2)


@dataclass
class Place:
    """Where an export runs: its files, its ledger, its limits and its Heap."""

    url: str
    home: Path
    limits: EventLimits = field(default_factory=EventLimits)
    rules: MappingRules = field(default_factory=MappingRules)
    options: dict = field(default_factory=dict)

    @property
    def source(self):
        return self.home / "source"

    @property
    def ledger(self):
        return self.home / "ledger"

    def open(self, run_id="run-1"):
        session = requests.Session()
        session.trust_env = False
        client = HeapClient(Transport(session, self.url, retry=QUICK), APP_ID)
        budget = EventBudget(client.environment, self.limits, folder=self.home)
        record = SourceLedger(self.ledger, ExportTarget(str(self.source), client.environment))
        request = ExportRequest(self.source, run_id, **self.options)
        return Export(request, record, EventMapping(self.rules), client, budget)

    def run(self, run_id="run-1"):
        return self.open(run_id).run()


def run_in_a_process(place, run_id):
    """Run an export; the target of a process that is killed."""
    place.run(run_id)
