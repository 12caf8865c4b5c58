# The commands of the house.  A newcomer needs two, as root: make demo, make test.
.PHONY: help demo install uninstall purge test check attack bench soak lab clean setup setup-test
SHELL := /bin/sh
PY := .venv/bin/python

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

setup:
	@tools/setup.sh

setup-test:
	@tools/setup.sh test

demo: setup ## the whole main job with the real OCI CLI, then a clean machine (root)
	@$(PY) -m tests.e2e.demo

install: ## credwire and credwired on this machine; nothing starts and nothing is bound (root)
	@tools/install.sh install

uninstall: ## take them off again; configuration, keys and audit stay (root)
	@tools/install.sh uninstall

purge: ## take everything off (root)
	@tools/install.sh purge

test: setup-test ## everything this machine can run, and what it could not (root)
	@$(PY) -m tests.run

check: ## ruff, mypy, unit and repo tests (no root, no bcc)
	@tools/setup.sh check
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy --no-error-summary
	@$(PY) -m pytest tests/unit tests/repo

attack: setup-test ## the attack rows alone (root)
	@$(PY) -m tests.run attack

bench: setup ## what signing costs, beside going direct (root, 3 minutes); results in build/bench.json
	@$(PY) -m tests.bench.measure

soak: setup ## a hundred thousand requests and no growth (root, 5 minutes); results in build/soak.json
	@$(PY) -m tests.bench.soak

lab: setup ## the kernel suites in virtual machines (root, long)
	@$(PY) -m tests.run lab

clean: ## remove what was built; caches of packages stay
	@rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis
