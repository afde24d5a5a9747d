# `make demo` and `make test` do everything, set-up included.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench soak chaos clean

help:
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: ## set up .venv and install/ (the other targets do it by themselves)
	@python=$$(command -v python3 python3.13 python3.12 python3.11 | head -n 1); \
	if [ "$$python" ]; then exec "$$python" scripts/setup.py; fi; \
	echo "setup: python3 is missing; install with: sudo apt install python3" >&2; exit 1

demo: setup ## the robot works for DURATION=120 s; PEOPLE=file STEP=0.4 REPORT=file.json PICTURE=file.png
	@. scripts/env.sh && exec brainos demo $(if $(DURATION),--duration $(DURATION)) \
	  $(if $(PEOPLE),--people "$(PEOPLE)") $(if $(STEP),--people-time-step $(STEP)) \
	  $(if $(REPORT),--report "$(REPORT)") $(if $(PICTURE),--picture "$(PICTURE)")

test: setup ## all tests; TESTS=path or pytest's own options in ARGS
	@. scripts/env.sh && exec python -m pytest $(or $(TESTS),test) $(ARGS)

lint: setup ## ruff, mypy --strict on the plain-Python rooms
	@. scripts/env.sh && python scripts/lint.py

bench: setup ## every benchmark, or NAME=decide, events, ...; of recovery TRIALS=30
	@. scripts/env.sh && exec python benchmark/run.py $(NAME)

chaos: setup ## random faults in a whole brain for MINUTES=5 from SEED=1; REPORT=file.json
	@. scripts/env.sh && exec python benchmark/chaos.py $(if $(MINUTES),--minutes $(MINUTES)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(REPORT),--report "$(REPORT)")

soak: setup ## a brain on a starved machine for MINUTES=10
	@. scripts/env.sh && exec python benchmark/soak.py $(if $(MINUTES),--minutes $(MINUTES))

clean: ## remove everything that was built
	rm -rf .venv build install log .mypy_cache .pytest_cache .ruff_cache .hypothesis
