# Two commands do everything on a fresh machine: `make demo` and `make test`.
#
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130    takes torch's build from that index (CPU: …/whl/cpu);
#                                                                  without it pip's own index decides

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
PYTEST_WORKERS ?= auto
DEMO ?= demo
INDEX_FLAG := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),)

.PHONY: demo results test test-all lint lock clean

demo: $(VENV)/.core
	@$(BIN)/scaling run examples/quickstart.yaml --workspace $(DEMO)

# What results/quickstart holds: the finished demo, but for the interactive page that the report repeats.
results: demo
	@mkdir -p results/quickstart && rm -rf results/quickstart/figures
	@cp -r $(DEMO)/studies/quickstart/*.json $(DEMO)/studies/quickstart/*.yaml $(DEMO)/studies/quickstart/*.csv \
	  $(DEMO)/studies/quickstart/report.html $(DEMO)/studies/quickstart/figures results/quickstart/

test: $(VENV)/.dev lint
	@$(BIN)/pytest -n $(PYTEST_WORKERS) -m "not slow"

test-all: $(VENV)/.dev lint
	@$(BIN)/pytest -n $(PYTEST_WORKERS)

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# torch goes first and alone, so that nothing else decides which build of it is fetched. requirements.lock is used as
# constraints: it pins every package, and only those that are asked for are installed.
$(VENV)/.torch: requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing $(TORCH) and the pinned dependencies into $(VENV) (a minute or two, once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock $(TORCH) $(INDEX_FLAG)
	@touch $@

$(VENV)/.core: $(VENV)/.torch pyproject.toml
	@$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e ".[dev]"
	@touch $@ $(VENV)/.core

# Resolves every extra anew in a throw-away environment and pins what came out; torch stays in pyproject.toml alone.
lock:
	@rm -rf .lock-venv && $(PYTHON) -m venv .lock-venv
	@.lock-venv/bin/pip install --quiet $(TORCH) $(INDEX_FLAG)
	@.lock-venv/bin/pip install --quiet -e ".[ray,slurm,postgres,tensorboard,posttrain,evaluate,corpus,dev]" $(LOCK_PINS)
	@.lock-venv/bin/pip check
	@{ echo "# Every package this project was tested with, but torch (pyproject.toml pins it). Written by: make lock"; \
	   .lock-venv/bin/pip freeze --exclude-editable | grep -v '^torch=='; } > requirements.lock
	@rm -rf .lock-venv

clean:
	rm -rf $(VENV) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
