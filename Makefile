# make audit: the demo. make test: everything that must hold. Both do all the set-up themselves.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: audit test lint types walls tests browser example docs benchmarks clean help

help:
	@grep -E '^# |^[a-z]+:.*## ' Makefile | sed 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --no-compile -e ".[dev]" -c constraints.txt
	@touch $(STAMP)

audit: $(STAMP) ## train a small network on the embedded digits, audit it, say where the report is
	$(BIN)/calipers audit digits-mlp --data digits --norm linf --eps 0.02 --eps 0.05 --eps 0.1 --out runs/digits --replace

test: lint types walls tests ## lint, types, walls, tests, doctests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

walls: $(STAMP)
	$(BIN)/lint-imports

tests: $(STAMP)
	$(BIN)/pytest -n 2 --dist loadfile

example: audit ## the demo's report and its screenshot, for the documentation
	cp runs/digits/report.html docs/example/report.html
	cd docs && chromium --headless --no-sandbox --hide-scrollbars --window-size=1000,1330 --screenshot=report.png "file://$(CURDIR)/docs/example/report.html"

browser: $(STAMP) ## the report in a real headless Chromium, installed from Debian's package where it is missing
	@command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium)
	$(BIN)/pytest -m browser tests

docs: $(STAMP) ## the documentation as pages, in build/docs
	$(BIN)/pip install --quiet --no-compile -e ".[dev,docs]" -c constraints.txt
	$(BIN)/sphinx-build -W docs build/docs

benchmarks: $(STAMP) ## side by side with the peers, in one run
	$(BIN)/pip install --quiet --no-compile -e ".[dev,peers]" -c constraints.txt
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv runs .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
