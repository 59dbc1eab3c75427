"""The questions of history.sql: each runs in Spark, the plain ones give the same in DuckDB, answers are right."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal

import duckdb
import pytest
from deltalake import DeltaTable

from equal.jobs.history import main, read_queries
from equal.schemas import SCHEMAS
from filled_tables import DOCS_PER_ARM, DOCS_PER_ITERATION, EQUAL_RUN, ITERATIONS, NUM_ARMS, RANDOM_RUN

QUERIES = {query.name: query for query in read_queries()}
PLAIN = [name for name, query in QUERIES.items() if not query.spark_only]


#: by root and name: several tests look at one answer
_ANSWERS: dict[tuple[str, str], list[dict[str, object]]] = {}


def _answer(history, name: str) -> list[dict[str, object]]:
    if (history.root, name) not in _ANSWERS:
        history.register_all()
        rows = history.spark.sql(QUERIES[name].sql).collect()
        _ANSWERS[history.root, name] = [row.asDict() for row in rows]
    return _ANSWERS[history.root, name]


def _write(tables, rows: dict[str, list[dict[str, object]]]) -> None:
    for name, written in rows.items():
        tables.append(name, tables.rows(name, written))


@pytest.fixture(scope="module")
def duck(history_root):
    """DuckDB over the same Delta tables, read without a JVM."""
    connection = duckdb.connect()
    for name in SCHEMAS:
        connection.register(name, DeltaTable(f"{history_root}/tables/{name}").to_pyarrow_table())
    return connection


def test_there_are_at_least_ten_and_each_says_why():
    assert len(QUERIES) >= 10
    assert len(PLAIN) >= 8
    assert [name for name, query in QUERIES.items() if len(query.why) < 30] == []
    assert [name for name, query in QUERIES.items() if ";" in query.sql or not query.sql] == []


def test_every_table_named_is_one_of_ours():
    named = {t for query in QUERIES.values() for t in re.findall(r"(?:FROM|JOIN|HISTORY) ([a-z_]+)", query.sql)}
    ours = {t for query in QUERIES.values() for t in re.findall(r"([a-z_]+) AS \(", query.sql)}
    assert named - ours <= set(SCHEMAS)
    assert {"arm_history", "iterations", "replies", "removals", "costs", "selected_pairs"} <= named


@pytest.mark.parametrize("name", QUERIES)
def test_spark_answers(history, name):
    assert _answer(history, name), f"{name} found nothing in a history with every table filled"


@pytest.mark.parametrize("name", PLAIN)
def test_duckdb_answers_the_same(history, duck, name):
    expected = [tuple(map(_plain, row.values())) for row in _answer(history, name)]
    found = [tuple(map(_plain, row)) for row in duck.execute(QUERIES[name].sql).fetchall()]
    assert len(found) == len(expected)
    for left, right in zip(found, expected):  # engines break ties at the last digit of a rounding differently
        assert left == tuple(pytest.approx(v, abs=0.011) if isinstance(v, float) else v for v in right)


def _plain(value: object) -> object:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.timezone.utc).isoformat()
    return round(float(value), 6) if isinstance(value, (float, Decimal)) else value


def test_outcomes_add_up_to_what_each_run_read(history):
    read = dict.fromkeys((EQUAL_RUN, RANDOM_RUN), 0)
    for row in _answer(history, "outcomes_of_extraction"):
        read[row["run_id"]] += row["documents"]
    assert set(read.values()) == {DOCS_PER_ITERATION * (ITERATIONS + 1)}


def test_shares_of_the_budget_add_up_and_show_that_equal_leaves_most_arms(history):
    rows = _answer(history, "budget_share_against_pool_share")
    for run in (EQUAL_RUN, RANDOM_RUN):
        assert sum(row["percent_of_budget"] for row in rows if row["run_id"] == run) == pytest.approx(100, abs=0.2)
    arms = {run: {row["arm_id"] for row in rows if row["run_id"] == run} for run in (EQUAL_RUN, RANDOM_RUN)}
    assert len(arms[EQUAL_RUN]) < len(arms[RANDOM_RUN])


def test_the_pool_is_that_of_the_runs_own_clustering(history):
    """The documents were clustered again since: arm 0 has another size there."""
    sizes = {arm: DOCS_PER_ARM - arm for arm in range(NUM_ARMS)}
    shares = _answer(history, "budget_share_against_pool_share")
    for row in shares:
        assert row["percent_of_pool"] == pytest.approx(100 * sizes[row["arm_id"]] / sum(sizes.values()), abs=0.006)
        assert row["times_random"] == pytest.approx(row["percent_of_budget"] / row["percent_of_pool"], abs=0.011)
    assert len(shares) == len({(row["run_id"], row["arm_id"]) for row in shares})
    read = {
        (row["run_id"], row["arm_id"]): row["documents_read"] for row in _answer(history, "spend_and_reward_per_arm")
    }
    unread = _answer(history, "unread_documents_of_the_best_arms")
    assert unread
    for row in unread:
        assert row["unread_documents"] == sizes[row["arm_id"]] - read[row["run_id"], row["arm_id"]]


def test_the_lineage_has_no_gap(history):
    rows = _answer(history, "lineage_of_a_pair")
    assert len(rows) == 1
    assert [name for name, value in rows[0].items() if value is None] == []
    assert rows[0]["source_file"].endswith(".jsonl.gz")


def test_the_lineage_of_a_pair_names_the_replies_of_its_own_passage_alone(tables):
    """A document of two passages, both read twice; the pair is of the second."""
    place = {"run_id": "r", "iteration": 1, "arm_id": 0, "doc_id": "d"}
    pair = {**place, "pair_id": "p", "passage_index": 1, "question": "Why?", "answer": "So."}
    keys = {"extract": ["x0", "x1"], "refine": ["y0", "y1"]}
    replies = [
        {"request_key": key, "passage_key": f"passage{key[1]}", "messages": f"prompt {key}", "text": f"reply {key}"}
        for found in keys.values()
        for key in found
    ]
    rows = {
        "documents": [{"doc_id": "d", "source_file": "f"}],
        "extractions": [{**place, "pass": name, "request_keys": found} for name, found in keys.items()],
        "replies": replies,
        "qa_pairs": [pair],
        "iterations": [{"run_id": "r", "iteration": 1}],
        "selected_pairs": [{**pair, "rank": 1}],
    }
    _write(tables, rows)
    found = {(row["pass"], row["prompt"], row["reply"]) for row in _answer(tables, "lineage_of_a_pair")}
    assert found == {("extract", "prompt x1", "reply x1"), ("refine", "prompt y1", "reply y1")}


def test_only_a_runs_last_iteration_says_why_it_ended(tables):
    """r was extended and goes on; s was extended and has read everything."""
    reasons = {"r": [None, "documents", None], "s": ["documents", "exhausted"]}
    marks = [
        {"run_id": run, "iteration": number, "stop_reason": reason}
        for run, found in reasons.items()
        for number, reason in enumerate(found)
    ]
    _write(tables, {"iterations": marks})
    found = [(row["run_id"], row["stop_reason"]) for row in _answer(tables, "iterations_of_each_run")]
    assert found == [("r", None)] * 3 + [("s", None), ("s", "exhausted")]


def test_withdrawn_documents_count_where_they_were_committed_and_in_the_warm_up(tables):
    places = [("warm_up-1f2e", 0, "w"), ("r", 1, "a"), ("r", 2, "b"), ("killed", 1, "a")]
    read = [{"run_id": run, "iteration": n, "doc_id": "d"} for run, n, _ in places]
    pairs = [{**row, "pair_id": pair} for row, (_, _, pair) in zip(read, places)]
    rows = {
        "documents": [{"doc_id": "d", "source_id": "taken back"}],
        "removals": [{"doc_id": "d", "stage": "withdrawn"}],
        "extractions": [{**row, "final": True} for row in read],
        "qa_pairs": [*pairs, {**pairs[1], "pair_id": "c"}],
        "iterations": [{"run_id": "r", "iteration": 1}],
        "selected_pairs": [{"run_id": "r", "pair_id": "a"}],
    }
    _write(tables, rows)
    assert [tuple(row.values()) for row in _answer(tables, "made_of_withdrawn_documents")] == [
        ("d", "taken back", "r", "pairs to train on", 2, 1),
        ("d", "taken back", "warm_up-1f2e", "tuning the encoder", 1, 0),
    ]


def test_a_reply_that_two_runs_stored_is_saved_once(tables):
    place = {"run_id": "r", "iteration": 1}
    reply = {"request_key": "k", "prompt_tokens": 40, "completion_tokens": 2}
    rows = {
        "iterations": [place | {"prompt_tokens": 40, "completion_tokens": 2, "money": 0.5}],
        "extractions": [
            {**place, "doc_id": "d", "request_keys": ["k", "lost", None]},
            {**place, "doc_id": "e", "request_keys": ["k", "gone"]},
            {**place, "doc_id": "f", "request_keys": ["k", "gone"]},
            {**place, "doc_id": "g", "request_keys": ["k"]},
        ],
        "replies": [reply, reply],
    }
    _write(tables, rows)
    assert _answer(tables, "cost_of_a_rerun") == [{
        "run_id": "r", "documents_to_ask": 3, "calls_to_pay": 2, "tokens_to_pay": 84, "money_to_pay": 1.0,
        "free_replies": 1, "tokens_saved": 42,
    }]  # fmt: skip


def test_the_documents_of_the_newest_prompt_are_named_with_their_last_outcome(tables):
    """d was drafted by the newest version, mended by another; e was read by the one before; f was not committed."""
    place = {"run_id": "r", "iteration": 1, "prompt_version": "new", "final": True, "num_pairs": 1, "pass": "extract"}
    at = dt.datetime(2026, 11, 20, tzinfo=dt.timezone.utc)
    rows = {
        "documents": [{"doc_id": d, "source_file": f"{d}.jsonl", "source_id": d} for d in "defw"],
        "replies": [
            {"request_key": version, "prompt_version": version, "received_at": at + dt.timedelta(hours=hour)}
            for hour, version in enumerate(("old", "mend", "new"))
        ],
        "iterations": [{"run_id": "r", "iteration": 1}],
        "extractions": [
            {**place, "doc_id": "d", "final": False, "status": "proposed"},
            {**place, "doc_id": "d", "pass": "refine", "prompt_version": "mend", "status": "accepted"},
            {**place, "doc_id": "e", "prompt_version": "old", "status": "accepted"},
            {**place, "doc_id": "f", "iteration": 2, "status": "accepted"},
            {**place, "doc_id": "w", "run_id": "warm_up-1f2e", "status": "void", "num_pairs": 0},
        ],
    }
    _write(tables, rows)
    assert [tuple(row.values()) for row in _answer(tables, "documents_of_a_prompt_version")] == [
        ("new", "d", "d.jsonl", "d", "r", 1, "accepted", 1),
        ("new", "w", "w.jsonl", "w", "warm_up-1f2e", 1, "void", 0),
    ]


def test_two_runs_compared_puts_the_measured_values_beside_the_spend(history):
    rows = {row["run_id"]: row for row in _answer(history, "two_runs_compared")}
    assert rows[EQUAL_RUN]["distance"] == pytest.approx(0.21)
    assert rows[RANDOM_RUN]["loss_after"] == pytest.approx(2.52)
    assert rows[EQUAL_RUN]["documents"] == rows[RANDOM_RUN]["documents"]


def test_a_rerun_pays_only_for_what_never_came(history):
    for row in _answer(history, "cost_of_a_rerun"):
        committed = history.read("iterations").select("run_id", "iteration")
        read = history.read("extractions").join(committed, ["run_id", "iteration"])
        statuses = [r.status for r in read.where(f"run_id = '{row['run_id']}'").collect()]
        assert row["documents_to_ask"] == row["calls_to_pay"] == statuses.count("failed") > 0
        assert row["tokens_to_pay"] == 625 * row["calls_to_pay"]
        assert row["free_replies"] == len(statuses) - row["calls_to_pay"]
        assert row["tokens_saved"] == 625 * row["free_replies"]


def test_time_travel_shows_the_arms_after_the_first_commit(history):
    rows = _answer(history, "arms_at_an_earlier_iteration")
    assert {(row["run_id"], row["iteration"]) for row in rows} == {(EQUAL_RUN, 0)}
    assert len(_answer(history, "versions_of_the_arm_history")) == 3, "created, first commit, the rest"


def test_the_job_prints_every_question_with_its_answer(history_root, capsys):
    main(["--set", f"storage.root={history_root}"])
    printed = capsys.readouterr().out
    for query in QUERIES.values():
        assert f"{query.name.replace('_', ' ')}\n{query.why}\n" in printed
    assert "near_duplicate" in printed


def test_a_root_without_tables_is_named_and_stays_as_it_is(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--set", f"storage.root={tmp_path}"])
    assert f"storage.root: {tmp_path} holds no tables" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
