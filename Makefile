# Everything works from a fresh clone with git, make and Python 3.11 or newer: each target first makes the
# environment in .venv, or finds it right and goes on.

PYTHON ?= python3
PRESET ?= quick
CORES ?=
PROFILE ?=
TESTS ?=
SET ?=
UPGRADE ?=
LAB ?=

BIN := .venv/bin
STRIPPED := metadata.papermill cell.metadata.papermill cell.metadata.execution
# What decides what .venv holds: the lock, the package's own file, the folder (scripts in .venv name it), and
# the interpreter where the user named one.
STATE = $(CURDIR) $(shell cat requirements.lock pyproject.toml | cksum)
CHOSEN := $(if $(filter command environment,$(firstword $(origin PYTHON))),$(PYTHON))
REPRODUCED = --preset '$(PRESET)' $(if $(CORES),--cores $(CORES)) $(if $(PROFILE),--profile $(PROFILE)) \
	$(foreach pair,$(SET),--set '$(pair)')

export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.PHONY: help env reproduce site pages smoke full estimate tune readme features docs test precision lab lint format lock clean

help: ## this list
	@echo "make TARGET, one of"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile
	@echo "Options: PYTHON=python3.12  PRESET=quick|smoke|full or evidence/NAME, paper/NAME  CORES=2  PROFILE=slurm|kubernetes|FOLDER/  TESTS=tests/unit/test_config.py"
	@echo "         paper/NAME: the papers' own experiments, see configs/paper and docs/data_sets.md"
	@echo "         SET='epochs=2 device=cpu' (of reproduce: other values in all runs of the preset)"
	@echo "         LAB='--no-browser --allow-root' (of JupyterLab; the second one in a container, as root)"

# pip installs the lock's uv, with its hashes, and uv the rest in seconds.
env: ## the environment in .venv, from requirements.lock
	@if [ "$(STATE)" = "$$(head -n 1 .venv/state 2>/dev/null)" ] \
		&& { [ -z "$(CHOSEN)" ] || [ "$(CHOSEN)" = "$$(tail -n 1 .venv/state)" ]; }; then exit 0; fi; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "compat_lib needs Python 3.11 or newer: \
	name another interpreter, for example make env PYTHON=python3.12")' || exit 1; \
	echo "Making .venv from requirements.lock (the first time this fetches about 3 GB)"; \
	{ $(PYTHON) -m venv --clear .venv || { echo "On Debian and Ubuntu install python3-venv first"; false; }; } && \
	awk '/^uv==/ { on = 1 } on { print } on && !/\\$$/ { exit }' requirements.lock > .venv/uv.txt && \
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.txt && \
	$(BIN)/uv pip sync -q --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock && \
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation --editable . && \
	printf '%s\n%s\n' "$(STATE)" "$(PYTHON)" > .venv/state && echo "The environment stands in .venv" || \
	{ echo "The environment could not be installed: the lines above say why. Is the package index reachable," \
	"and is there room for 7 GB? The same command tries again."; exit 1; }

reproduce: env ## the main job: every experiment of PRESET, then the page that compares them
	@$(BIN)/python workflow/reproduce.py $(REPRODUCED)

site: env ## reproduce, then the notebooks that take minutes as well
	@$(BIN)/python workflow/reproduce.py $(REPRODUCED) --site

pages: env ## the pages of PRESET again, from the runs that are there
	@$(BIN)/python workflow/pages.py --preset '$(PRESET)'

smoke: ## reproduce with the preset smoke: everything once, very small, about four minutes
	@$(MAKE) --no-print-directory reproduce PRESET=smoke

full: ## reproduce with the preset full: all data sets, scenarios and seeds, hours
	@$(MAKE) --no-print-directory reproduce PRESET=full

estimate: env ## images, steps, memory and time of PRESET, from a measured step, before anyone starts it
	@$(BIN)/python workflow/estimate.py --preset '$(PRESET)'

tune: env ## the search for every method's options, into results/tuning: hours, goes on where it stopped
	@$(BIN)/python workflow/tune.py

readme: env ## README.md, the pages of docs/ with numbers, figures/first_day.png from docs/templates and results/
	@$(BIN)/python workflow/readme.py

features: env ## release/features-omniglot-s0.npz: the features of one seed of the main runs, for docs/features.md
	@$(BIN)/python workflow/release.py

docs: env ## docs/methods.md from the classes of compat_lib.losses
	@$(BIN)/python workflow/readme.py docs/methods.md

test: env ## the tests, two at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

precision: env ## the tests that depend on it in the precision that this processor does not choose by itself
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m precision --precision other tests

lab: env ## JupyterLab on the notebooks
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/python -m jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb \
		--LabApp.app_settings_dir="$(CURDIR)/workflow/lab" --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate $(LAB)

lint: env ## what ruff says of rules and format; changes nothing
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check

format: env ## let ruff mend rules and format, and strip the notebooks
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format
	$(BIN)/nbstripout --keep-id --extra-keys "$(STRIPPED)" notebooks/*.ipynb

# For every platform and Python from 3.11, with hashes, and with no address of a package index.
lock: env ## requirements.lock anew from pyproject.toml; UPGRADE=1: newest versions
	$(BIN)/uv pip compile pyproject.toml --extra workflow --extra milvus --extra test --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --custom-compile-command "make lock" --quiet --output-file requirements.lock \
		$(if $(UPGRADE),--upgrade)

clean: ## remove the environment and caches; runs/ and data/ stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
