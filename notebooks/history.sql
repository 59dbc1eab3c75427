-- Questions that people ask of the extraction history. Each stands alone, table names are bare.
-- "engine: spark" marks what needs Spark SQL on Delta; the rest runs in any SQL engine over the same tables.
-- 1e2 is a double in every engine, where 100.0 is a decimal in some.
-- Rows of an iteration count once `iterations` has its row: that is the commit mark, written last.
-- An arm_id is a cluster_id of the clustering that the run's `iterations` name; others stand beside it.


-- name: spend_and_reward_per_arm
-- Where the budget went, and whether the arms that got it were worth it.
SELECT a.run_id, a.arm_id, max(a.pulls) AS pulls, max(a.documents) AS documents_read, max(a.pairs) AS pairs,
       round(max_by(a.reward, a.iteration), 4) AS reward,
       round(max_by(a.standard_error, a.iteration), 4) AS standard_error
FROM arm_history a
JOIN iterations i ON i.run_id = a.run_id AND i.iteration = a.iteration
GROUP BY a.run_id, a.arm_id
ORDER BY a.run_id, documents_read DESC, a.arm_id;


-- name: budget_share_against_pool_share
-- A good bandit reads more from an arm than its share of the documents; 1 would be random reading.
WITH pool AS (
  SELECT clustering, cluster_id AS arm_id, count(*) AS documents,
         sum(count(*)) OVER (PARTITION BY clustering) AS all_documents
  FROM assignments
  GROUP BY clustering, cluster_id
), reading AS (
  SELECT e.run_id, i.clustering, e.arm_id, count(*) AS documents
  FROM extractions e
  JOIN iterations i ON i.run_id = e.run_id AND i.iteration = e.iteration
  WHERE e.final
  GROUP BY e.run_id, i.clustering, e.arm_id
)
SELECT r.run_id, r.arm_id,
       round(1e2 * p.documents / p.all_documents, 2) AS percent_of_pool,
       round(1e2 * r.documents / sum(r.documents) OVER (PARTITION BY r.run_id), 2) AS percent_of_budget,
       round(1e0 * r.documents / sum(r.documents) OVER (PARTITION BY r.run_id)
             * p.all_documents / p.documents, 2) AS times_random
FROM reading r
JOIN pool p ON p.clustering = r.clustering AND p.arm_id = r.arm_id
ORDER BY r.run_id, times_random DESC, r.arm_id;


-- name: removals_by_reason
-- Why documents never reached the model, with one piece of evidence for each reason.
SELECT stage, reason, count(*) AS documents, min(evidence) AS for_example
FROM removals
GROUP BY stage, reason
ORDER BY stage, documents DESC, reason;


-- name: made_of_withdrawn_documents
-- What its source took back and a run had read before: the pairs made of it, and how many are selected and exported to be
-- trained on; none once select_pairs has run again.
-- A warm-up has no iterations: what it read went into the tuning of the encoder, and none of it is ever selected.
SELECT w.doc_id, d.source_id, e.run_id,
       CASE WHEN max(i.iteration) IS NULL THEN 'tuning the encoder' ELSE 'pairs to train on' END AS read_for,
       count(DISTINCT p.pair_id) AS pairs, count(DISTINCT s.pair_id) AS pairs_trained_on
FROM removals w
JOIN documents d ON d.doc_id = w.doc_id
JOIN extractions e ON e.doc_id = w.doc_id AND e.final
LEFT JOIN iterations i ON i.run_id = e.run_id AND i.iteration = e.iteration
LEFT JOIN qa_pairs p ON p.doc_id = e.doc_id AND p.run_id = e.run_id AND p.iteration = e.iteration
LEFT JOIN selected_pairs s ON s.pair_id = p.pair_id AND s.run_id = p.run_id
WHERE w.stage = 'withdrawn' AND (i.run_id IS NOT NULL OR e.run_id LIKE 'warm_up-%')
GROUP BY w.doc_id, d.source_id, e.run_id
ORDER BY e.run_id, w.doc_id;


-- name: outcomes_of_extraction
-- How each document that was read ended, run by run; the documents of a run add up to what it read.
SELECT e.run_id, e.status, count(*) AS documents, sum(e.num_pairs) AS pairs, sum(e.num_rejected) AS pairs_rejected,
       round(1e2 * count(*) / sum(count(*)) OVER (PARTITION BY e.run_id), 1) AS percent
FROM extractions e
JOIN iterations i ON i.run_id = e.run_id AND i.iteration = e.iteration
WHERE e.final
GROUP BY e.run_id, e.status
ORDER BY e.run_id, documents DESC, e.status;


-- name: failures
-- What the endpoint answered when it did not serve, most frequent first.
SELECT e.run_id, e.error, count(*) AS documents, max(e.attempts) AS most_attempts
FROM extractions e
LEFT JOIN iterations i ON i.run_id = e.run_id AND i.iteration = e.iteration
WHERE e.final AND (e.unserved > 0 OR e.status = 'not_sent') AND (i.run_id IS NOT NULL OR e.run_id LIKE 'warm_up-%')
GROUP BY e.run_id, e.error
ORDER BY documents DESC, e.run_id, e.error;


-- name: cost_per_stage
-- The bill: what each stage of each run used; `corpus` stages serve every run.
SELECT run_id, stage, sum(documents) AS documents, sum(calls) AS calls, sum(cached_calls) AS from_store,
       sum(prompt_tokens) AS prompt_tokens, sum(cached_tokens) AS cached_tokens,
       sum(completion_tokens) AS completion_tokens,
       round(sum(seconds), 1) AS seconds, sum(flops) AS flops, round(sum(money), 4) AS money
FROM costs
GROUP BY run_id, stage
ORDER BY run_id, min(recorded_at), stage;


-- name: iterations_of_each_run
-- How the budget ran out: what every iteration added, and why the last one was the last; nothing where a run can go on.
SELECT run_id, iteration, documents, pairs, prompt_tokens + completion_tokens AS tokens, total_documents, total_tokens,
       CASE WHEN iteration = max(iteration) OVER (PARTITION BY run_id) THEN stop_reason END AS stop_reason, finished_at
FROM iterations
ORDER BY run_id, iteration;


-- name: two_runs_compared
-- All runs side by side: what they read, what it gave, how near it came to the held-out reference.
WITH used AS (
  SELECT run_id, sum(documents) AS documents, sum(prompt_tokens + completion_tokens) AS tokens, sum(pairs) AS pairs
  FROM iterations
  GROUP BY run_id
), measured AS (
  SELECT run_id,
         max_by(value, evaluated_at) FILTER (WHERE metric = 'transport_distance' AND model = 'pairs') AS distance,
         max_by(value, evaluated_at) FILTER (WHERE metric = 'target_loss' AND model = 'base') AS loss_before,
         max_by(value, evaluated_at) FILTER (WHERE metric = 'target_loss' AND model = 'tuned') AS loss_after
  FROM evaluations
  GROUP BY run_id
)
SELECT u.run_id, u.documents, u.tokens, u.pairs, round(1e0 * u.pairs / u.documents, 3) AS pairs_per_document,
       round(m.distance, 4) AS distance, round(m.loss_before, 4) AS loss_before, round(m.loss_after, 4) AS loss_after
FROM used u
LEFT JOIN measured m ON m.run_id = u.run_id
ORDER BY u.run_id;


-- name: course_of_the_distance
-- Did reading more bring the pairs nearer to the held-out reference, and could less have been enough?
SELECT e.run_id, i.iteration, i.total_documents AS documents_read, round(e.value, 4) AS distance,
       round(e.low, 4) AS low, round(e.high, 4) AS high
FROM evaluations e
JOIN iterations i ON i.run_id = e.run_id AND e.model = concat('pairs:', CAST(i.iteration AS STRING))
WHERE e.metric = 'transport_distance'
ORDER BY e.run_id, i.iteration;


-- name: pairs_per_thousand_tokens
-- Which arms give much for their tokens, whatever their reward.
SELECT e.run_id, e.arm_id, sum(e.prompt_tokens + e.completion_tokens) AS tokens,
       sum(CASE WHEN e.final THEN e.num_pairs ELSE 0 END) AS pairs,
       round(1e3 * sum(CASE WHEN e.final THEN e.num_pairs ELSE 0 END)
             / nullif(sum(e.prompt_tokens + e.completion_tokens), 0), 3) AS pairs_per_thousand_tokens
FROM extractions e
JOIN iterations i ON i.run_id = e.run_id AND i.iteration = e.iteration
GROUP BY e.run_id, e.arm_id
ORDER BY e.run_id, pairs_per_thousand_tokens DESC, e.arm_id;


-- name: prompt_versions
-- How much each version of a prompt read, and how well it did.
SELECT e.prompt_version, e.pass, count(DISTINCT e.doc_id) AS documents, sum(e.calls + e.cached_calls) AS replies,
       sum(e.prompt_tokens + e.completion_tokens) AS tokens,
       sum(CASE WHEN e.final THEN e.num_pairs ELSE 0 END) AS pairs
FROM extractions e
JOIN iterations i ON i.run_id = e.run_id AND i.iteration = e.iteration
GROUP BY e.prompt_version, e.pass
ORDER BY documents DESC, e.prompt_version, e.pass;


-- name: documents_of_a_prompt_version
-- Which documents a version touched, and how each ended: what a change of that prompt would read again. It is the version
-- that last got a reply; to ask of another one, write SELECT '...' AS prompt_version in place of what stands in `version`.
WITH version AS (
  SELECT prompt_version FROM replies ORDER BY received_at DESC, prompt_version LIMIT 1
), touched AS (
  SELECT DISTINCT e.prompt_version, e.run_id, e.doc_id
  FROM extractions e
  JOIN version v ON v.prompt_version = e.prompt_version
)
SELECT t.prompt_version, t.doc_id, d.source_file, d.source_id, t.run_id, e.iteration, e.status, e.num_pairs AS pairs
FROM touched t
JOIN documents d ON d.doc_id = t.doc_id
JOIN extractions e ON e.run_id = t.run_id AND e.doc_id = t.doc_id AND e.final
LEFT JOIN iterations i ON i.run_id = e.run_id AND i.iteration = e.iteration
WHERE i.run_id IS NOT NULL OR e.run_id LIKE 'warm_up-%'
ORDER BY d.source_file, d.source_id, t.doc_id, t.run_id;


-- name: unread_documents_of_the_best_arms
-- Where a larger budget would go first.
WITH newest AS (
  SELECT a.run_id, i.clustering, a.arm_id, max(a.documents) AS documents_read,
         max_by(a.reward, a.iteration) AS reward
  FROM arm_history a
  JOIN iterations i ON i.run_id = a.run_id AND i.iteration = a.iteration
  GROUP BY a.run_id, i.clustering, a.arm_id
), pool AS (
  SELECT clustering, cluster_id AS arm_id, count(*) AS documents FROM assignments GROUP BY clustering, cluster_id
)
SELECT n.run_id, n.arm_id, round(n.reward, 4) AS reward, p.documents - n.documents_read AS unread_documents
FROM newest n
JOIN pool p ON p.clustering = n.clustering AND p.arm_id = n.arm_id
WHERE n.reward IS NOT NULL AND p.documents > n.documents_read
ORDER BY n.run_id, n.reward DESC, n.arm_id;


-- name: cost_of_a_rerun
-- engine: spark
-- What running each run again would cost: replies in the store are free, those that never came are asked again. What these
-- take is not known, so their tokens and money are those of as many average replies of the run; second passes not counted.
WITH asked AS (
  SELECT DISTINCT a.run_id, a.doc_id, a.request_key
  FROM (SELECT run_id, iteration, doc_id, explode(request_keys) AS request_key FROM extractions) a
  JOIN iterations i ON i.run_id = a.run_id AND i.iteration = a.iteration
  WHERE a.request_key IS NOT NULL
), requests AS (
  SELECT a.run_id, a.request_key, max(r.prompt_tokens + r.completion_tokens) AS tokens
  FROM asked a
  LEFT JOIN replies r ON r.request_key = a.request_key
  GROUP BY a.run_id, a.request_key
), unanswered AS (
  SELECT a.run_id, count(DISTINCT a.doc_id) AS documents
  FROM asked a
  JOIN requests q ON q.run_id = a.run_id AND q.request_key = a.request_key
  WHERE q.tokens IS NULL
  GROUP BY a.run_id
), prices AS (
  SELECT run_id, sum(money) / nullif(sum(prompt_tokens + completion_tokens), 0) AS a_token FROM iterations GROUP BY run_id
)
SELECT q.run_id, coalesce(max(u.documents), 0) AS documents_to_ask, count(*) - count(q.tokens) AS calls_to_pay,
       round((count(*) - count(q.tokens)) * avg(q.tokens)) AS tokens_to_pay,
       round((count(*) - count(q.tokens)) * avg(q.tokens) * max(p.a_token), 4) AS money_to_pay,
       count(q.tokens) AS free_replies, coalesce(sum(q.tokens), 0) AS tokens_saved
FROM requests q
JOIN prices p ON p.run_id = q.run_id
LEFT JOIN unanswered u ON u.run_id = q.run_id
GROUP BY q.run_id
ORDER BY q.run_id;


-- name: lineage_of_a_pair
-- engine: spark
-- From the best selected pair back to its source file, and to prompt and reply of each pass over its own passage
-- (of one that was read in two parts, a second pass over either), and on to the table version and MLflow run. To ask of another pair, write WHERE pair_id = '...' in `pair`.
WITH pair AS (
  SELECT * FROM selected_pairs ORDER BY rank, run_id LIMIT 1
), tuned AS (
  SELECT run_id, max_by(details, finished_at) AS details FROM stages WHERE stage = 'finetune' GROUP BY run_id
)
SELECT p.pair_id, p.question, d.source_file, d.source_id, p.doc_id, p.arm_id, q.iteration, i.finished_at AS committed_at,
       e.pass, e.prompt_version, r.model, r.received_at, r.request_key, r.messages AS prompt, r.text AS reply,
       get_json_object(t.details, '$.selected_pairs_version') AS selected_pairs_version,
       get_json_object(t.details, '$.mlflow_run_id') AS mlflow_run_id
FROM pair p
JOIN qa_pairs q ON q.pair_id = p.pair_id AND q.run_id = p.run_id
JOIN iterations i ON i.run_id = q.run_id AND i.iteration = q.iteration
JOIN documents d ON d.doc_id = p.doc_id
JOIN extractions x ON x.run_id = q.run_id AND x.iteration = q.iteration AND x.doc_id = q.doc_id AND x.pass = 'extract'
JOIN replies passage ON passage.request_key = get(x.request_keys, q.passage_index)
JOIN extractions e ON e.run_id = q.run_id AND e.iteration = q.iteration AND e.doc_id = q.doc_id
JOIN replies r ON array_contains(e.request_keys, r.request_key) AND r.passage_key = passage.passage_key
              AND (e.pass <> 'extract' OR r.request_key = passage.request_key)
LEFT JOIN tuned t ON t.run_id = p.run_id
ORDER BY r.received_at, r.request_key;


-- name: pairs_that_said_it_again
-- engine: spark
-- Which accepted pairs were left out because a better-ranked one asks the same, and how near they are.
WITH dropped AS (
  SELECT run_id, question AS kept_question, pair_id AS kept, doc_id AS kept_doc, explode(duplicates) AS duplicate
  FROM selected_pairs
)
SELECT d.run_id, d.duplicate.reason, round(d.duplicate.similarity, 4) AS similarity, d.duplicate.pair_id AS dropped,
       q.question AS dropped_question, q.doc_id AS dropped_doc, d.kept, d.kept_question, d.kept_doc
FROM dropped d
JOIN qa_pairs q ON q.run_id = d.run_id AND q.pair_id = d.duplicate.pair_id
JOIN iterations i ON i.run_id = q.run_id AND i.iteration = q.iteration
ORDER BY d.run_id, d.duplicate.reason, similarity DESC, d.duplicate.pair_id;


-- name: versions_of_the_arm_history
-- engine: spark
-- Every commit of the bandit, so that one can look at the arms as they were; pick a version for the next query.
DESCRIBE HISTORY arm_history;


-- name: arms_at_an_earlier_iteration
-- engine: spark
-- What the bandit knew after its first commit; change the version to travel.
SELECT run_id, iteration, arm_id, pulls, documents, pairs, round(reward, 4) AS reward
FROM arm_history VERSION AS OF 1
ORDER BY run_id, iteration, arm_id;
