# Databricks notebook source
# MAGIC %md
# MAGIC # The arms of one run
# MAGIC
# MAGIC Which clusters of documents the bandit read, what it learned of them, and where the budget went.
# MAGIC Name the run as its job did: `EQUAL_CONFIG` is its `--config`, `EQUAL_SET` what it was given by `--set`, blanks
# MAGIC between, such as `run_name=first storage.root=/Volumes/main/equal/equal/runs storage.schema=main.equal`. Both
# MAGIC are environment variables of the cluster; or write them into the line below.

# COMMAND ----------

import os

from equal.config import load
from equal.io import evidence, figures
from equal.io.session import open_session
from equal.io.summary import require_runs, spend
from equal.io.tables import Tables

config = load(os.environ.get("EQUAL_CONFIG", "conf/prod.yml"), os.environ.get("EQUAL_SET", "").split())
tables = Tables(open_session(config.spark.partitions), config.storage.root, config.storage.schema)
tables.register_all()
require_runs(tables, [config.run_name])

# COMMAND ----------

# MAGIC %md
# MAGIC ## What the run used

# COMMAND ----------

used = spend(tables, config.run_name)
used

# COMMAND ----------

# MAGIC %md
# MAGIC ## Map
# MAGIC
# MAGIC Centroids on their first two principal components. Area: documents; colour: reward; ring: documents read.

# COMMAND ----------

history = evidence.arm_history(tables, config.run_name)
arms, plane_share = evidence.arms(tables, config.run_name, history)
map_of_arms = figures.arm_map(arms)
map_of_arms

# COMMAND ----------

# MAGIC %md
# MAGIC ## Rewards
# MAGIC
# MAGIC The reward of an arm is that of all its pairs so far (Eq. 2); bars are one standard error.

# COMMAND ----------

rewarded = [row for row in history if row["reward"] is not None]
last = max((row["iteration"] for row in history), default=0)
rewards = figures.rewards(rewarded, last, used["warm_up_iterations"])
rewards

# COMMAND ----------

# MAGIC %md
# MAGIC ## Where the budget went
# MAGIC
# MAGIC `times_random` is the arm's share of the documents read over its share of all documents: 1 is random reading.

# COMMAND ----------

total, read = sum(arm["size"] for arm in arms), sum(arm["read"] for arm in arms)
spent = [
    {
        "arm_id": arm["arm_id"], "documents": arm["size"], "read": arm["read"], "pairs": arm["pairs"],
        "reward": arm["reward"], "times_random": (arm["read"] / read) / (arm["size"] / total), "about": arm["label"],
    }
    for arm in arms
    if arm["read"]
]
budget = tables.spark.createDataFrame(
    spent, "arm_id int, documents long, read long, pairs long, reward double, times_random double, about string"
).orderBy("times_random", ascending=False)
budget.toPandas()

# COMMAND ----------

# MAGIC %md
# MAGIC ## What the best arm gave

# COMMAND ----------

best = max((arm for arm in arms if arm["reward"] is not None), key=lambda arm: arm["reward"], default={"arm_id": -1})
pairs_of_best = tables.spark.sql(
    f"""
    SELECT q.question, q.answer, q.similarity, d.source_id
    FROM qa_pairs q
    JOIN iterations i ON i.run_id = q.run_id AND i.iteration = q.iteration
    JOIN documents d ON d.doc_id = q.doc_id
    WHERE q.run_id = '{config.run_name}' AND q.arm_id = {best["arm_id"]}
    ORDER BY q.pair_id
    LIMIT 20
    """
)
pairs_of_best.toPandas()
