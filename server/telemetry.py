"""`/metrics` in Prometheus's format: what the database says at the moment of the scrape, and how requests are answered.

It needs a token like everything else. Names are listed in docs/operations.md.
"""

import time
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func
from sqlmodel import Session, col, select

from server.auth import CurrentUser
from server.db.tables import ACTIVE, Attempt, Run, RunState, Worker
from server.services import health
from server.services.workers import is_alive, list_workers

router = APIRouter(include_in_schema=False)


class Telemetry:
    """The registry of one application and what is counted as it happens."""

    def __init__(self, state: Any) -> None:
        self.registry = CollectorRegistry()
        self._requests = Histogram(
            "sparseboard_http_request_seconds",
            "Time until an answer begins.",
            ["method", "status"],
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(_DatabaseCollector(state))

    def observe(self, method: str, status: int, seconds: float) -> None:
        """Count an answer; `method` is one that routes know, not what a client invents."""
        known = method if method in ("GET", "HEAD", "POST") else "other"
        self._requests.labels(known, f"{status // 100}xx").observe(seconds)


@router.get("/metrics")
def metrics(request: Request, user: CurrentUser) -> Response:
    """All metrics, in the dialect that the scraper asks for."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    telemetry: Telemetry = request.app.state.telemetry
    return Response(encode(telemetry.registry), media_type=content_type)


class _DatabaseCollector(Collector):
    def __init__(self, state: Any) -> None:
        self._state = state

    def describe(self) -> list[Metric]:
        return []  # otherwise the database would be asked while the application is built

    def collect(self) -> Iterator[Metric]:
        state = self._state
        with state.db.read() as session:
            found = health.examine(session, state.settings, state.hints)
            metrics = [*_of_runs(session), *_of_workers(list_workers(session))]
        yield from metrics
        yield _gauge("sparseboard_streams_open", "Event streams of browsers.", sum(state.open_streams.values()))
        yield _gauge("sparseboard_disk_free_bytes", "Room on the disk of the data folder.", found.disk_free_bytes)
        if found.broker_age_s is not None:
            yield _gauge("sparseboard_broker_age_seconds", "Since the broker was last heard.", found.broker_age_s)
        symptoms = GaugeMetricFamily("sparseboard_degraded", "1 for every reason of /readyz.", labels=["reason"])
        for code in sorted({symptom.code for symptom in found.symptoms}):
            symptoms.add_metric([code], 1)
        yield symptoms


def _of_runs(session: Session) -> Iterator[Metric]:
    counts = dict(session.execute(select(Run.state, func.count()).group_by(col(Run.state))).all())
    states = GaugeMetricFamily("sparseboard_runs", "Runs by state.", labels=["state"])
    for state in RunState:
        states.add_metric([state], counts.get(state, 0))
    yield states
    oldest = session.exec(select(func.min(Run.queued_at)).where(Run.state == RunState.QUEUED)).one()
    wait = time.time() - oldest if oldest is not None else 0.0
    yield _gauge("sparseboard_queue_wait_seconds", "How long the oldest queued run has waited.", wait)
    latest = session.exec(select(Run.latest).where(col(Run.state).in_(ACTIVE))).all()
    rates = [values.get("tokens_per_s") for values in latest]
    total = sum(rate for rate in rates if isinstance(rate, int | float))
    yield _gauge("sparseboard_tokens_per_second", "Training throughput of all active runs.", total)
    ended = CounterMetricFamily("sparseboard_attempts_ended", "Attempts by how they ended.", labels=["outcome"])
    statement = select(Attempt.outcome, func.count()).where(Attempt.outcome != "").group_by(col(Attempt.outcome))
    for outcome, count in session.execute(statement):
        ended.add_metric([outcome], count)
    yield ended


def _of_workers(workers: list[Worker]) -> Iterator[Metric]:
    now = time.time()
    alive = sum(1 for worker in workers if is_alive(worker))
    yield _gauge("sparseboard_workers_alive", "Workers that were seen within the last minute.", alive)
    tick = GaugeMetricFamily("sparseboard_worker_tick_age_seconds", "Since a worker's last tick.", labels=["worker"])
    consumer = GaugeMetricFamily(
        "sparseboard_worker_consumer_age_seconds",
        "Between a worker's last tick and the last message that it took.",
        labels=["worker"],
    )
    for worker in workers:
        tick.add_metric([worker.name], now - worker.seen_at)
        consumer.add_metric([worker.name], health.consumer_age_s(worker))
    yield from (tick, consumer)


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, value=value)
