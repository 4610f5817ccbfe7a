# Two commands: `make demo` and `make test`. Each target sets up what it needs, in $(VENV).
VENV ?= .venv
VIDEOS ?= demo/videos
OUT ?= demo/workspace
PYTHON ?= python3
RUN = $(VENV)/bin

.PHONY: demo demo-train toy test test-slow test-campaign test-all properties wheel-test lint format bench bench-shots bench-stats bench-compare bench-models bench-captions bench-colour bench-artifacts bench-gates bench-corpus bench-presto bench-studio e2e chaos chaos-s3 simulate bench-cluster bench-store docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready
	@if [ "$(VIDEOS)" = demo/videos ]; then $(RUN)/python -m tests.corpus demo/videos; fi
	$(RUN)/longtake curate "$(VIDEOS)" -r embedded -o "$(OUT)"

TRAIN_VIDEOS ?= $(or $(wildcard ../shared/corpus/videos/short ../shared/corpus/videos/ai ../shared/corpus/videos/long),demo/videos)
TRAIN_OUT ?= demo/train

demo-train: $(VENV)/.ready  ## raw video → clips → shards → latents → ten steps of a tiny random model → a sample
	@if [ "$(TRAIN_VIDEOS)" = demo/videos ]; then $(RUN)/python -m tests.corpus demo/videos; fi
	$(RUN)/longtake curate $(TRAIN_VIDEOS) -r presto/demo/curate.yaml -o "$(TRAIN_OUT)/workspace"
	test -d "$(TRAIN_OUT)/model" || $(RUN)/python -m longtake.presto.tiny "$(TRAIN_OUT)/model"
	$(RUN)/longtake-presto encode "$(TRAIN_OUT)/workspace/dataset/pretrain" -m "$(TRAIN_OUT)/model" -r tiny -o "$(TRAIN_OUT)/latents"
	$(RUN)/longtake-presto train "$(TRAIN_OUT)/latents" -m "$(TRAIN_OUT)/model" -r tiny -o "$(TRAIN_OUT)/run" --dry-run
	$(RUN)/longtake-presto train "$(TRAIN_OUT)/latents" -m "$(TRAIN_OUT)/model" -r tiny -o "$(TRAIN_OUT)/run"
	$(RUN)/longtake-presto sample "$(TRAIN_OUT)/run/export" -o "$(TRAIN_OUT)/samples" --frames 40 --height 64 --width 112 --steps 4 \
	  -p "a street in the morning" -p "a car comes near" -p "it turns left" -p "people walk by" -p "the street is empty"

toy: $(VENV)/.ready  ## what segmented attention can learn and plain attention cannot
	$(RUN)/python -m longtake.presto.toy

# Each worker gets one thread for its arithmetic: two workers with two threads each would wait for one another. Three keep two
# cores busy, since many tests wait for a server or for a process.
PYTEST = OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n 3

test: $(VENV)/.ready  ## all but the slow tests
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.ready  ## training loops, kills, clusters, large tables
	$(PYTEST) -m "slow and not campaign"

test-campaign: $(VENV)/.ready  ## minutes each: all of the real film, machines that freeze
	$(PYTEST) -m campaign

test-all: $(VENV)/.ready  ## every test that needs no browser
	$(PYTEST)

wheel-test:  ## the wheel alone, in an empty environment
	PYTHON="$(PYTHON)" .ci/wheel-test

ROUNDS ?= 5

properties: $(VENV)/.ready  ## the property tests with examples that no run has drawn before, ROUNDS=5 times over
	for round in $$(seq $(ROUNDS)); do \
	  $(PYTEST) -m "hypothesis and not campaign" --hypothesis-profile "any machine" || exit 1; \
	done

lint: $(VENV)/.ready
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/python -m pytest -n0 tests/test_words.py

format: $(VENV)/.ready
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

bench: $(VENV)/.ready  ## needs a system ffmpeg, to compare with
	$(RUN)/python -m benchmarks.scan

bench-shots: $(VENV)/.ready  ## which cuts are found; needs a system ffmpeg and ../shared
	$(RUN)/python -m benchmarks.shots

bench-colour: $(VENV)/.ready  ## COLOURS=FOLDER with ref.mkv and the same film in other encodings; HDR=FOLDER
	$(RUN)/python -m benchmarks.colour $(COLOURS) $(if $(HDR),--hdr $(HDR))

bench-stats: $(VENV)/.ready
	$(RUN)/python -m benchmarks.stats_million

bench-compare: $(VENV)/.ready  ## `longtake compare` on a million clips, all published recipes
	$(RUN)/python -m benchmarks.compare_million

bench-store: $(VENV)/.ready  ## the store and the plans on ROWS=200000 clips: CPU seconds, peak memory, bytes
	$(RUN)/python -m benchmarks.store $(if $(ROWS),--rows $(ROWS)) $(if $(PARTS),--parts $(PARTS))

bench-models: $(VENV)/.ready  ## random weights; on the GPU where there is one
	$(RUN)/python -m benchmarks.models

bench-captions: $(VENV)/.ready  ## own overhead, and how busy an endpoint is kept
	$(RUN)/python -m benchmarks.captions

bench-artifacts: $(VENV)/.ready  ## artifacts against labels by eye, on the real corpus
	$(RUN)/python -m benchmarks.artifacts

bench-gates: $(VENV)/.ready  ## filters of the picture against known faults, on the real corpus
	$(RUN)/python -m benchmarks.gates
	$(RUN)/python -m benchmarks.borders

bench-corpus: $(VENV)/.ready  ## copies and concepts over a whole corpus, simulated: CPU seconds, peak memory
	$(RUN)/python -m benchmarks.corpus

bench-presto: $(VENV)/.ready  ## attention, reading, and on a GPU a step of the published size
	$(RUN)/python -m benchmarks.presto

bench-studio: $(VENV)/.ready  ## a million clips in the studio
	$(RUN)/python -m benchmarks.studio_million

bench-cluster: $(VENV)/.ready  ## a second node, and Ray's own share of the CPU
	$(RUN)/python -m benchmarks.cluster

e2e: $(VENV)/.ready  ## in a real browser: apt-get install chromium
	VIRTUAL_ENV="$(abspath $(VENV))" $(RUN)/uv pip install --quiet --compile-bytecode --constraint constraints.txt --editable '.[e2e]'
	$(RUN)/python -m pytest tests/e2e

simulate: $(VENV)/.ready  ## the store in a simulated world: 10,000 histories, then faults planted on purpose
	$(RUN)/python -m benchmarks.simulation
	$(RUN)/python -m benchmarks.simulation --planted

chaos: $(VENV)/.ready
	$(RUN)/python -m benchmarks.chaos

chaos-s3: $(VENV)/.ready  ## FAULTS=120 faults of an object store, on a real S3 server on loopback
	$(RUN)/python -m benchmarks.chaos_s3 $(if $(FAULTS),--faults $(FAULTS))

SITE ?= build/site

docs: $(VENV)/.ready  ## the pages of filters and funnels, and the site from all pages: build/site/index.html
	$(RUN)/python -m docs.filter_pages
	$(RUN)/python -m docs.funnel_pages
	$(RUN)/python -m docs.site "$(SITE)"

clean:
	rm -rf demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 3; }
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV) || { echo "venv is missing: apt-get install python3-venv"; exit 3; }
	$(RUN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	VIRTUAL_ENV="$(abspath $(VENV))" $(RUN)/uv pip install --quiet --compile-bytecode --constraint constraints.txt --editable '.[models,presto,studio,dev]'
	@touch $@
