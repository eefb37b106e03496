# make help lists the targets. PYTHON=... names the Python that .venv is made with.
.POSIX:
.PHONY: help setup demo test test-slow test-long test-connect test-spark40 test-cluster test-s3 fuzz chaos lint types docs build sbom format clean bench bench-full bench-speed bench-ingest bench-sail bench-scheduled bench-gains bench-profile bench-upkeep bench-cluster bench-declined bench-detection bench-elsewhere bench-variations bench-scale

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

setup: ## Make .venv with everything, tests and linters included
	@$(SETUP) --dev

demo: ## Simulate a small organisation, run everything over it, show what was found
	@$(SETUP)
	@.venv/bin/raretrail demo $(ARGS)

test: ## Run the default tests (ARGS=... goes to pytest)
	@$(SETUP) --dev
	@.venv/bin/python -m pytest $(SIDE) $(ARGS)

test-slow: ## Run the tests marked slow
	@$(SETUP) --dev
	@.venv/bin/python -m pytest -m slow $(SIDE) $(ARGS)

test-long: ## Run the tests marked long, of many runs each: before a release
	@$(SETUP) --dev
	@.venv/bin/python -m pytest -m long $(SIDE) $(ARGS)

test-connect: ## Run the job through a Spark Connect server of its own
	@$(SETUP) --dev
	@.venv/bin/python -m pytest -m cluster tests/cluster/test_connect.py $(ARGS)

test-spark40: ## Run the job on Spark 4.0 with its Delta, in an environment of its own
	@$(SETUP) --dev
	@.venv/bin/python -m pytest -m cluster tests/cluster/test_spark40.py $(ARGS)

test-cluster: ## Run the job on a standalone cluster of bare workers, on S3; one is killed
	@$(SETUP) --dev
	@.venv/bin/python -m pytest -m cluster tests/cluster/test_standalone.py $(ARGS)

test-s3: ## Run the job on a real S3 server, which Go builds the first time
	@$(SETUP) --dev
	@.venv/bin/python -m pytest -m cluster tests/s3 $(ARGS)

fuzz: ## Put 100,000 hostile files through the decoder (ARGS=--count=N)
	@$(SETUP) --dev
	@.venv/bin/python tests/robustness/fuzz.py --into docs/reliability.md $(ARGS)

chaos: ## Kill the job 100 times, start it in pairs, fill its disk; compare every table (ARGS=--kills=N)
	@$(SETUP) --dev
	@.venv/bin/python tests/robustness/chaos.py --into docs/reliability.md $(ARGS)

lint: ## Check style with ruff
	@$(SETUP) --dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

types: ## Check types with mypy
	@$(SETUP) --dev
	@.venv/bin/mypy

docs: ## Build the manual into site/
	@$(SETUP) --dev
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet $(ARGS)
	@echo "the manual is site/index.html"

bench: ## The measures of docs/performance.md on 0.2 and 2 million events, and the scheduled run
	@$(SETUP) --dev
	@cd bench && ../.venv/bin/python -m ingest --events 200000,2000000 --parts engines --into ../docs/performance.md
	@cd bench && ../.venv/bin/python -m scheduled --repeat 1 --into ../docs/performance.md

bench-full: ## All of that page: 20 million events, judging, queries, upkeep (hours, 30 GB of disk)
	@$(SETUP) --dev
	@cd bench && ../.venv/bin/python -m ingest --events 200000,2000000 --alone 20000000 --into ../docs/performance.md
	@cd bench && ../.venv/bin/python -m scheduled --into ../docs/performance.md
	@cd bench && ../.venv/bin/python -m scheduled.gains --into ../docs/performance.md
	@cd bench && ../.venv/bin/python -m scheduled.profile --into ../docs/performance.md
	@cd bench && ../.venv/bin/python -m scheduled.upkeep --into ../docs/performance.md
	@.venv/bin/python bench/speed.py --into docs/performance.md

bench-speed: ## Time the main job, cold and whole process (ARGS=--people=160 ...)
	@$(SETUP) --dev
	@.venv/bin/python bench/speed.py --into docs/performance.md $(ARGS)

bench-cluster: ## One worker and two on S3, the main job (ARGS=--people=20)
	@$(SETUP) --dev
	@.venv/bin/python bench/cluster.py --into docs/object-storage.md $(ARGS)

bench-ingest: ## Take a large trail in beside polars, DuckDB and plain Python (ARGS=--events=2000000)
	@$(SETUP) --dev
	@cd bench && ../.venv/bin/python -m ingest --into ../docs/performance.md $(ARGS)

bench-sail: ## Which statements of the job pysail takes, in an environment of its own
	@$(SETUP) --dev
	@test -x .cache/sail/bin/sail || { .venv/bin/python -m venv .cache/sail && .cache/sail/bin/pip -q install pysail==0.7.2; }
	@.venv/bin/python bench/sail.py --sail .cache/sail/bin/sail --into docs/performance.md $(ARGS)

bench-scheduled: ## The scheduled run beside Spark's defaults, on 400 days, resident (ARGS=--repeat=3)
	@$(SETUP) --dev
	@cd bench && ../.venv/bin/python -m scheduled --into ../docs/performance.md $(ARGS)

bench-gains: ## What each thing that makes a scheduled run quick is worth
	@$(SETUP) --dev
	@cd bench && ../.venv/bin/python -m scheduled.gains --into ../docs/performance.md $(ARGS)

bench-profile: ## Where a scheduled run's seconds go, by stage and by what works
	@$(SETUP) --dev
	@cd bench && ../.venv/bin/python -m scheduled.profile --into ../docs/performance.md $(ARGS)

bench-upkeep: ## Files and log entries after 10,000 scheduled runs (ARGS=--runs=N)
	@$(SETUP) --dev
	@cd bench && ../.venv/bin/python -m scheduled.upkeep --into ../docs/performance.md $(ARGS)

bench-detection: ## Recall at a budget on simulated organisations (about an hour; ARGS=--seeds=41)
	@$(SETUP) --dev
	@cd bench && ../.venv/bin/python -m detection --cache ../.cache/bench --seeds 41,42,43,44,45 \
		--scorer detection.engine:score --scorer detection.prototype:score \
		--into ../docs/detection.md --summary ../README.md $(ARGS)

bench-elsewhere: ## The same on other sizes, without ASN, with real techniques (about an hour)
	@$(SETUP) --dev
	@cd bench && ../.venv/bin/python -m detection.elsewhere --cache ../.cache/bench \
		--into ../docs/detection.md $(ARGS)

bench-declined: ## What was left out of the score, weighed in the prototype (ten minutes; ARGS=--seeds=1)
	@$(SETUP) --dev
	@cd bench && ../.venv/bin/python -m detection.declined --cache ../.cache/bench \
		--into ../docs/decisions/0007-scorer.md $(ARGS)

bench-variations: ## What each term and constant of the score is worth (about an hour; ARGS=--seeds=41)
	@$(SETUP) --dev
	@cd bench && ../.venv/bin/python -m detection.variations --cache ../.cache/bench --seeds 41 \
		--into ../docs/detection.md $(ARGS)

bench-scale: ## The job's queries on metadata of a large organisation (3 GB of disk, half an hour)
	@$(SETUP) --dev
	@.venv/bin/python bench/scale.py --into docs/scale.md $(ARGS)

build: ## Build wheel and source distribution into dist/
	@$(SETUP) --dev
	@rm -f dist/raretrail-*.whl dist/raretrail-*.tar.gz
	@.venv/bin/python -m build --no-isolation --outdir dist . >/dev/null
	@ls dist/raretrail-*.whl dist/raretrail-*.tar.gz

sbom: ## Write the bill of materials (CycloneDX) into dist/
	@$(SETUP) --dev
	@.venv/bin/python tools/sbom.py $(ARGS)

format: ## Let ruff rewrite the code
	@$(SETUP) --dev
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

clean: ## Remove .venv and everything made by builds, tests and the demo
	@rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site demo
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Two processes, each with a Spark of its own: small frames keep one core busy. A file's tests stay together, and
# files keep the order of tests/conftest.py, the longest first.
SIDE = --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The first Python that fits; if none does, whichever there is, which then says what is wrong.
SETUP = p="$(PYTHON)"; \
	if [ -z "$$p" ]; then \
		for c in python3.13 python3.12 python3.11 python3; do \
			if $$c -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
				>/dev/null 2>&1; then p=$$c; break; fi; \
		done; \
	fi; \
	"$${p:-python3}" tools/setup.py
