"""Metrics of the whole service, read from Postgres and Redis at each scrape.

Workers have no port: they may run on hosts that Prometheus can't reach, come and go, and compute most of the time.
Their counters are in Postgres, so every API process reports the same numbers: take the `max` over API processes, not
the `sum`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from sqlalchemy.exc import SQLAlchemyError

from app.core.lifecycle import counts, fleet
from app.core.queue import QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric
    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions
    from app.core.lifecycle.counts import Amounts
    from app.core.queue import TaskQueue

logger = logging.getLogger(__name__)


class Fleet:
    """A collector over Postgres and Redis; a server that does not answer is reported as down, without its figures."""

    def __init__(self, sessions: Sessions, queue: TaskQueue) -> None:
        self._sessions = sessions
        self._queue = queue

    def collect(self) -> Iterator[Metric]:
        """Query the servers."""
        up = GaugeMetricFamily("spice_up", "Whether a server that the API needs answers.", labels=("server",))
        found: list[Metric] = [up]
        try:
            with self._sessions() as session:
                found += _of_postgres(session)
            up.add_metric(("postgres",), 1)
        except SQLAlchemyError as error:
            logger.warning("Postgres does not answer, so its metrics are left out: %s", error)
            up.add_metric(("postgres",), 0)
        try:
            found.append(_messages(self._queue))
            up.add_metric(("redis",), 1)
        except QueueUnavailable as error:
            logger.warning("Redis does not answer, so its metrics are left out: %s", error)
            up.add_metric(("redis",), 0)
        yield from found


def _of_postgres(session: Session) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("spice_jobs", "Jobs that are kept, by state.", labels=("state",))
    for state, count in fleet.jobs_by_state(session).items():
        jobs.add_metric((state,), count)
    depth = GaugeMetricFamily("spice_queue_depth", "Rows in Postgres that wait for a worker.", labels=("queue",))
    age = GaugeMetricFamily("spice_queue_oldest_seconds", "How long the oldest of them has waited.", labels=("queue",))
    for queue, waiting in fleet.backlog(session).items():
        depth.add_metric((queue,), waiting.depth)
        age.add_metric((queue,), waiting.oldest_s)
    workers = GaugeMetricFamily("spice_workers", "Workers alive, by the queue that they serve.", labels=("queue",))
    for queue, count in fleet.alive(session).items():
        workers.add_metric((queue,), count)
    samples, tokens = fleet.speed(session)
    yield from (jobs, depth, age, workers)
    yield GaugeMetricFamily("spice_samples_per_second", "Samples whose gradients are computed a second, now.", samples)
    yield GaugeMetricFamily("spice_tokens_per_second", "Tokens whose gradients are computed a second, now.", tokens)
    counts.count_ended(session)
    yield from _counted(counts.totals(session))


def _counted(totals: Amounts) -> Iterator[Metric]:
    ended = CounterMetricFamily("spice_jobs_ended", "Jobs that have ended.", labels=("state", "reason"))
    for (name, labels), value in sorted(totals.items()):
        if name == counts.JOBS_ENDED:
            ended.add_metric(labels, value)
    yield ended
    for name, what in ((counts.SAMPLES, "Samples"), (counts.TOKENS, "Tokens")):
        yield CounterMetricFamily(
            f"spice_{name}", f"{what} whose gradients were computed.", value=totals.get((name, ()), 0.0)
        )
    stages = HistogramMetricFamily(
        "spice_stage_duration_seconds", "Time of a stage of a job that succeeded.", labels=("stage",)
    )
    for (name, labels), seconds in sorted(totals.items()):
        if name == counts.STAGE_SECONDS:
            stages.add_metric(labels, _buckets(totals, labels[0]), seconds)
    yield stages


def _buckets(totals: Amounts, stage: str) -> list[tuple[str, float]]:
    """Cumulative counts of buckets, as Prometheus expects them."""
    ends = [*map(str, counts.BUCKETS_S), "+Inf"]
    below = 0.0
    buckets = []
    for place, end in enumerate(ends):
        below += totals.get((counts.STAGE_BUCKETS, (stage, str(place))), 0.0)
        buckets.append((end, below))
    return buckets


def _messages(queue: TaskQueue) -> Metric:
    messages = GaugeMetricFamily("spice_rq_messages", "Messages in Redis; Postgres is the truth.", labels=("queue",))
    for name, length in queue.lengths().items():
        messages.add_metric((name,), length)
    return messages
