# Two commands do everything on a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test lint types docs clean

install: .venv/.installed

demo: .venv/.installed
	$(BIN)/stillrobust demo --out demo

test: .venv/.installed-dev
	$(MAKE) --no-print-directory -j 2 lint types docs
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev
	$(BIN)/mypy

docs: .venv/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# What the demo needs. The frost photographs come with imagecorruptions-imaug, whose own dependencies are not needed.
.venv/.installed: pyproject.toml
	@echo "1 of 3: making .venv"
	@$(PYTHON) -m venv .venv
	@echo "2 of 3: installing PyTorch, the core and the demo's weights"
	@echo "        (3 GB to download, 6 GB on disk; pip shows each file)"
	@$(BIN)/python -m pip install -e '.[torch,demo]'
	@echo "3 of 3: installing the photographs for frost (4 MB)"
	@$(BIN)/python -m pip install --no-deps imagecorruptions-imaug==1.1.5
	touch $@

# What tests, checks and documentation need in addition.
.venv/.installed-dev: .venv/.installed
	@echo "installing what tests, checks and documentation need (2 GB on disk)"
	@$(BIN)/python -m pip install -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo site
