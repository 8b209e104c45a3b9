"""Metrics of the requests of one API process. `app.metrics.fleet` has those of the whole service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Metrics:
    """The metrics of one API process: a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Histogram(
            "spice_http_request_duration_seconds",
            "Time from a request's head to the last byte of its answer.",
            ("method", "route", "status"),
            buckets=BUCKETS,
            registry=self._registry,
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request by its route as declared; paths with ids would make a label for each job."""
        self._requests.labels(method, route, str(status)).observe(seconds)

    def exposition(self, accept: str, *collectors: Collector) -> tuple[bytes, str]:
        """All metrics as text, and its media type; those of `collectors` are gathered now."""
        encode, media_type = choose_encoder(accept)
        return encode(_Together(self._registry, *collectors)), media_type


class _Together:
    """Several collectors as one, for one exposition."""

    def __init__(self, *collectors: Collector) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Metric]:
        """The families of all of them, one after the other."""
        for collector in self._collectors:
            yield from collector.collect()
