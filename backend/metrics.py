"""Prometheus counters of one server; the registry belongs to the app, not to the process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100)


class Metrics:
    """What /metrics shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter(
            "edgetam_requests", "Requests answered.", ["route", "status"], registry=r
        )
        self.latency = Histogram(
            "edgetam_request_seconds",
            "Time to answer a request.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=r,
        )
        self.steps = Histogram(
            "edgetam_step_seconds",
            "Time of one step: fetch, decode, embed, predict, encode, open, track, push.",
            ["step"],
            buckets=LATENCY_BUCKETS,
            registry=r,
        )
        self.errors = Counter("edgetam_errors", "Errors by class.", ["kind"], registry=r)
        self.embeddings = Counter(
            "edgetam_embedding_cache", "Embedding look-ups.", ["outcome"], registry=r
        )
        self.media = Counter("edgetam_media_cache", "Media look-ups.", ["outcome"], registry=r)
        self.media_bytes = Counter("edgetam_media_bytes", "Bytes of media downloaded.", registry=r)
        self.masks = Counter("edgetam_masks", "Masks made.", ["kind"], registry=r)
        self.jobs = Counter(
            "edgetam_jobs", "Tracking jobs by how they ended.", ["state"], registry=r
        )
        self.jobs_running = Gauge("edgetam_jobs_running", "Jobs that run now.", registry=r)
        self.jobs_queued = Gauge("edgetam_jobs_queued", "Jobs that wait.", registry=r)
        self.model_ready = Gauge("edgetam_model_ready", "1 once the model is loaded.", registry=r)

    def observe_step(self, step: str, seconds: float) -> None:
        self.steps.labels(step).observe(seconds)

    def count_embedding(self, hit: bool) -> None:
        self.embeddings.labels("hit" if hit else "miss").inc()

    def render(self) -> bytes:
        """Text exposition format."""
        return bytes(generate_latest(self.registry))
