# make bench   train, test and record a method on a dataset; without METHOD: a frozen and an adapted backbone, side by side
# make test    the test suite
# make finding the HCLoRA paper's ablation on the embedded world, resumably [QUICK=1] [JOBS=2] [AGAIN=1]
# make splits  who is consistent with what is salient, by a prober [DATASET=...] [PROBER=openai|oracle|saliency]
# make tables  the papers' tables; make table PAPER=hclora TABLE=3 DATASET=... [SEEDS=0,1,2] [JOBS=1] runs what is missing
#              (FIGURE=2 instead of TABLE: what that figure lacks)
# make board   the boards as pages for a browser, into leaderboards/index.html (Markdown and CSV are committed, pages are not)
# make docs    the documentation site with the board, into build/site
# All make the environment first, once.
#
#   make bench METHOD=gazelle DATASET=vat DATA_ROOT=/data/videoattentiontarget [BACKBONE=...] [SEED=...]
#              [INIT=weights.pt | none] [DEVICES=8|auto] [NODES=2]
#              [ARGS="--trainer.max_epochs 3 --loader.workers 4"]
#   make bench METHOD=gazelle DATA=gazefollow+vat+childplay DATA_ROOT=/data/gf+/data/vat+/data/cp   one training, three tests

PYTHON ?= python3
VENV ?= .venv
METHOD ?=
DATASET ?= $(or $(DATA),gazeworld)
SEED ?= 0

# Threads that wait must sleep: on shared cores OpenMP's spinning costs more than the work.
export OMP_WAIT_POLICY = passive
# The checkout's root must stay off sys.path, where its folder datasets/ would be taken for Hugging Face's.
export PYTHONSAFEPATH = 1

BIN := $(VENV)/bin
STAMP := $(VENV)/.gazebench-installed
TESTS ?= tests
WORKERS ?= 2

.PHONY: bench finding splits tables table test lint board docs clean help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -14

$(STAMP): pyproject.toml setup.py constraints.txt
	@echo "making the environment $(VENV) (once; torch is a large download) ..."
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gazebench needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[dev]'
	@touch $@

bench: $(STAMP)
	@$(BIN)/gazebench bench $(if $(METHOD)$(filter-out gazeworld,$(DATASET)),$(or $(METHOD),gazelle) $(DATASET)) --seed=$(SEED) \
	  $(if $(DATA_ROOT),--dataset.root="$(DATA_ROOT)") $(if $(BACKBONE),--model.backbone=$(BACKBONE)) \
	  $(if $(INIT),--init="$(INIT)") $(if $(DEVICES),--trainer.devices=$(DEVICES:auto=all)) \
	  $(if $(NODES),--trainer.num_nodes=$(NODES)) $(ARGS)

finding: $(STAMP)
	@$(BIN)/gazebench study studies/finding.yaml $(if $(QUICK),--quick) $(if $(JOBS),--jobs=$(JOBS)) \
	  $(if $(AGAIN),--again) $(ARGS)

splits: $(STAMP)
	@$(BIN)/gazebench probe $(DATASET) $(if $(PROBER),--prober=$(PROBER)) \
	  $(if $(DATA_ROOT),--dataset.root="$(DATA_ROOT)") $(ARGS)

tables: $(STAMP)
	@$(BIN)/gazebench tables $(ARGS)

table: $(STAMP)
	@$(BIN)/gazebench tables $(PAPER)-$(if $(FIGURE),figure-$(FIGURE),$(TABLE)) --run --dataset=$(DATASET) \
	  $(if $(SEEDS),--seeds=$(SEEDS)) $(if $(JOBS),--jobs=$(JOBS)) \
	  $(if $(DATA_ROOT),--dataset.root="$(DATA_ROOT)") $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q $(TESTS) $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy gazebench methods datasets
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/draw_architecture.py --check

docs: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[docs]'
	$(BIN)/python -m mkdocs build --strict --quiet

board: $(STAMP)
	@$(BIN)/gazebench leaderboard

clean:
	rm -rf $(VENV) build dist *.egg-info
