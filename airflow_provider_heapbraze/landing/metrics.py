"""What Prometheus reads: numbers only, of this process, in a registry of the app's own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
DELIVERIES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.deliveries = Counter(
            "heapbraze_landing_deliveries",
            "Deliveries by who sent them and what became of them",
            ["route", "outcome"],
            registry=self.registry,
        )
        self.bytes = Counter(
            "heapbraze_landing_bytes", "Bytes of bodies landed", ["route"], registry=self.registry
        )
        self.open = Gauge(
            "heapbraze_landing_open_requests",
            "Deliveries being taken",
            ["route"],
            registry=self.registry,
        )
        self.writes = Counter(
            "heapbraze_landing_writes", "Files written, or not", ["outcome"], registry=self.registry
        )
        self.write_seconds = Histogram(
            "heapbraze_landing_write_seconds",
            "How long a write took",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.deliveries_per_write = Histogram(
            "heapbraze_landing_deliveries_per_write",
            "How many deliveries shared a write",
            buckets=DELIVERIES,
            registry=self.registry,
        )
