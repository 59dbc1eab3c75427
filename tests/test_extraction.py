"""How an extraction shares out tasks and requests in flight, and adds up its rows; no Spark is started."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from equal.config import load
from equal.core.allowance import Amount
from equal.extraction import Extraction, extracted_of
from equal.io.spool import Paid


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
    assert (reading.tasks(), reading.make_client(0).in_flight(0)) == (4, 6)
    assert (reading.tasks(2), reading.make_client(0, 2).in_flight(0)) == (2, 6)


def test_clients_give_up_at_the_share_that_the_iteration_may_lose():
    reading = extraction(slots=2, in_flight=4)
    assert reading.make_client(0).client.max_failed_share == reading.job.config.endpoint.max_failed_share < 1
    assert reading.make_client(0, max_failed_share=1.0).client.max_failed_share == 1.0


@given(slots=st.integers(1, 40), in_flight=st.integers(2, 200), at_once=st.integers(1, 2), iteration=st.integers(0, 9))
def test_iterations_beside_each_other_have_all_requests_in_flight_and_no_more(slots, in_flight, at_once, iteration):
    reading = extraction(slots, in_flight)
    tasks = reading.tasks(at_once)
    clients = [reading.make_client(iteration + beside, at_once) for beside in range(at_once)]
    parts = [client.in_flight(partition) for client in clients for partition in range(tasks)]
    assert 1 <= tasks <= max(1, slots // at_once)
    assert min(parts) >= 1
    assert max(parts) - min(parts) <= 1
    assert sum(parts) == in_flight


def row(doc_id: str, place: int = 0, pair_id: str | None = None, **other: object) -> dict[str, object]:
    """A pass over a document, which took three calls of 10 + 2 tokens together; or one more pair of it."""
    counts = {"calls": 1, "cached_calls": 2, "prompt_tokens": 10, "completion_tokens": 2}
    needed = {"needed_tokens": 0, "needed_money": 0.0}
    embedding = None if pair_id is None else np.array([1.0, float(place)], np.float32)
    known = {"arm_id": 7, "doc_id": doc_id, "final": True, "status": "accepted", "place": place}
    return {**known, **counts, **needed, "pair_id": pair_id, "embedding": embedding, **other}


def test_a_row_counts_once_whatever_its_pairs_and_a_document_once_whatever_its_passes():
    budget = load(overrides=["budget.prompt_price=100000", "budget.completion_price=200000"]).budget
    found = [
        row("a", final=False, status="proposed"),
        row("a", 0, "p3", needed_tokens=40),
        row("a", 1, "p1", needed_tokens=40),
        row("b", status="void", arm_id=8, needed_tokens=90, needed_money=0.5),
        row("c", 0, "p2", arm_id=8),
    ]
    extracted = extracted_of(found, Paid(5, 20, 12, 4), budget)
    assert extracted.documents == {7: 1, 8: 2}
    assert extracted.outcomes == {"accepted": 2, "void": 1}
    assert (extracted.calls, extracted.cached_calls) == (5, 7), "a task that died had paid for one more"
    assert (extracted.prompt_tokens, extracted.completion_tokens) == (40, 8)
    assert (extracted.paid_prompt_tokens, extracted.paid_cached_tokens, extracted.paid_completion_tokens) == (
        20,
        12,
        4,
    )
    assert (round(extracted.money, 9), round(extracted.paid_money, 9)) == (4 + 1.6, 2 + 0.8)
    assert extracted.need == Amount(90, 0.5)
    assert extracted.pairs.pair_ids.tolist() == ["p1", "p2", "p3"]
    assert extracted.pairs.doc_ids.tolist() == ["a", "c", "a"]
    assert extracted.pairs.arm_ids.tolist() == [7, 8, 7]
    assert extracted.pairs.embeddings.tolist() == [[1, 1], [1, 0], [1, 0]]


def test_of_nothing_nothing_is_brought():
    extracted = extracted_of([], Paid(), load().budget)
    assert (extracted.documents, extracted.calls, extracted.need) == ({}, 0, Amount(0))
    assert len(extracted.pairs.pair_ids) == 0
