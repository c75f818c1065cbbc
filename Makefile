# Two commands: `make demo` and `make test`. Each sets up .venv first, once, and again when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow clean
.DEFAULT_GOAL := help
help:
	@echo "make demo   set up and run the main job on built-in photographs (3 minutes)"
	@echo "make test   set up and run linters, type checker and tests (10 to 20 minutes)"
	@echo "make test-slow   run the quick form of every benchmark (5 to 10 minutes)"

demo: $(VENV)/.installed
	$(BIN)/ownlatent demo

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadgroup

test-slow: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadgroup -m slow

$(VENV)/.installed: pyproject.toml constraints.txt
	@sh scripts/install.sh "$(PYTHON)" "$(VENV)" .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@sh scripts/install.sh "$(PYTHON)" "$(VENV)" ".[test,lint]"
	@touch $@

clean:
	rm -rf $(VENV)
