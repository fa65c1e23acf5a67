# make test   installs the package with what its tests need, then lint, format, types, tests and doctests
# make demo   installs the package and ranks six pruning methods on ResNet-20
# Both need Python 3.11 or newer and nothing else; what they install goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PYTEST_ARGS ?= -n 2

.PHONY: test check demo clean

test: check
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: $(VENV)/.installed-demo
	$(BIN)/mge-gpu doctor
	$(BIN)/mge-gpu rank mge:resnet20 --input 3x32x32 --sparsity 0.98 \
		--methods uniform,er,erk,magnitude,synflow,snip

# A stamp file for each set of extras, so that only a change of the package's metadata installs again.
$(VENV)/.installed-test: pyproject.toml setup.py | $(VENV)/.made
	@echo "Installing the package and its test tools into $(VENV); torch is large, the first time takes minutes."
	$(PIP) --editable '.[test,rank,pyg,plots]'
	@touch $@

$(VENV)/.installed-demo: pyproject.toml setup.py | $(VENV)/.made
	@echo "Installing the package into $(VENV); torch is large, the first time takes minutes."
	$(PIP) --editable '.[rank,vision,plots]'
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
