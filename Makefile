# Two commands: `make demo` and `make test`. Each sets up what it needs, in $(VENV).
VENV ?= .venv
VIDEOS ?= demo/videos
OUT ?= demo/workspace
PYTHON ?= python3
RUN = $(VENV)/bin

.PHONY: demo test lint format bench bench-stats bench-models chaos docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready
	@if [ "$(VIDEOS)" = demo/videos ]; then $(RUN)/python -m tests.corpus demo/videos; fi
	$(RUN)/longtake curate "$(VIDEOS)" -r embedded -o "$(OUT)"

test: $(VENV)/.ready
	$(RUN)/python -m pytest

lint: $(VENV)/.ready
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

format: $(VENV)/.ready
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

bench: $(VENV)/.ready  ## needs a system ffmpeg, to compare with
	$(RUN)/python -m benchmarks.scan

bench-stats: $(VENV)/.ready
	$(RUN)/python -m benchmarks.stats_million

bench-models: $(VENV)/.ready  ## random weights; on the GPU where there is one
	$(RUN)/python -m benchmarks.models

chaos: $(VENV)/.ready
	$(RUN)/python -m benchmarks.chaos

docs: $(VENV)/.ready
	$(RUN)/python -m docs.filter_pages

clean:
	rm -rf demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 3; }
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV) || { echo "venv is missing: apt-get install python3-venv"; exit 3; }
	$(RUN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	VIRTUAL_ENV="$(abspath $(VENV))" $(RUN)/uv pip install --quiet --constraint constraints.txt --editable '.[models,dev]'
	@touch $@
