"""How an extraction shares out tasks and requests in flight; no Spark is started."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from equal.config import load
from equal.extraction import Extraction


def extraction(slots: int, in_flight: int = 24, depth: int = 1) -> Extraction:
    """On so many cores."""
    config = load(
        overrides=[f"endpoint.in_flight={in_flight}", "spark.partitions=16", f"bandit.pipeline_depth={depth}"]
    )
    spark = SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=slots))
    job = SimpleNamespace(config=config, spark=spark, owner="o", path=lambda *parts: "/".join(parts))
    reading = Extraction(job, "r", "encoder")
    reading.__dict__["key"] = ""  # what is cached is not asked for: there is no server
    return reading


def test_what_runs_alone_has_all_tasks_and_all_requests_whatever_the_depth_of_the_bandit():
    reading = extraction(slots=4, in_flight=24, depth=2)
    assert (reading.tasks(), reading.make_client(0).client.in_flight) == (4, 6)
    assert (reading.tasks(2), reading.make_client(0, 2).client.in_flight) == (2, 6)


@given(slots=st.integers(1, 40), in_flight=st.integers(2, 200), at_once=st.integers(1, 2))
def test_iterations_beside_each_other_never_have_more_requests_in_flight_than_allowed(slots, in_flight, at_once):
    reading = extraction(slots, in_flight)
    tasks = reading.tasks(at_once)
    each = reading.make_client(0, at_once).client.in_flight
    assert 1 <= tasks <= max(1, slots // at_once)
    assert at_once * tasks * each <= in_flight
    assert at_once * tasks * (each + 1) > in_flight
