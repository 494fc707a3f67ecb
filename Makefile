# Everything works from a fresh clone with git, make and Python 3.11 or newer: each target first makes the
# environment in .venv, or finds it right and goes on.

PYTHON ?= python3
PRESET ?= quick
CORES ?=
TESTS ?=
UPGRADE ?=
LAB ?=

BIN := .venv/bin
STRIPPED := metadata.papermill cell.metadata.papermill cell.metadata.execution
# Only an interpreter that the user named decides the version of an existing .venv.
CHOSEN := $(if $(filter command environment,$(firstword $(origin PYTHON))),--chosen)

export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.PHONY: help env reproduce site smoke full figures docs test lab lint format lock clean

help: ## this list
	@echo "make TARGET, one of"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile
	@echo "Options: PYTHON=python3.12  PRESET=quick|smoke|tuning|full  CORES=2  TESTS=tests/unit/test_config.py"
	@echo "         LAB='--no-browser --allow-root' (of JupyterLab; the second one in a container, as root)"

env: ## the environment in .venv, from requirements.lock
	@$(PYTHON) workflow/install.py $(CHOSEN)

reproduce: env ## the main job: every experiment of PRESET, then the page that compares them
	@$(BIN)/python workflow/reproduce.py --preset $(PRESET) $(if $(CORES),--cores $(CORES))

site: env ## reproduce, then all notebooks and documents as one site with a search, offline
	@$(BIN)/python workflow/reproduce.py --preset $(PRESET) $(if $(CORES),--cores $(CORES)) --site

smoke: ## reproduce with the preset smoke: everything once, very small, about four minutes
	@$(MAKE) --no-print-directory reproduce PRESET=smoke

full: ## reproduce with the preset full: all data sets, scenarios and seeds, hours
	@$(MAKE) --no-print-directory reproduce PRESET=full

figures: env ## the README's pictures, copied from the runs of PRESET
	@$(BIN)/python workflow/figures.py --preset $(PRESET)

docs: env ## docs/methods.md from the classes of compat_lib.losses
	@$(BIN)/python workflow/methods_page.py

test: env ## the tests, two at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

lab: env ## JupyterLab on the notebooks
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb \
		--LabApp.app_settings_dir="$(CURDIR)/workflow/lab" --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate $(LAB)

lint: env ## what ruff says of rules and format; changes nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: env ## let ruff mend rules and format, and strip the notebooks
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/nbstripout --keep-id --extra-keys "$(STRIPPED)" notebooks/*.ipynb

lock: env ## requirements.lock and environment.yml anew from pyproject.toml; UPGRADE=1: newest versions
	$(BIN)/python workflow/lock.py $(if $(UPGRADE),--upgrade)

clean: ## remove the environment and caches; runs/ and data/ stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
