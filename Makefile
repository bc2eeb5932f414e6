# The two commands of the README, and what they are made of. Everything lives in .venv.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
# Empty: the model that ships.
MODEL ?=

BIN := .venv/bin
# Folders in their order: the long files (engines, the image) come first, and short ones keep both processes busy at the end.
PYTEST := $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve test test-all lint format model results bench gpu-check soak image-check screenshot parity clean

serve: .venv/.serve  ## install what is missing, then serve: make serve [MODEL=…] [HOST=…] [PORT=…]
	@$(BIN)/dualfocus serve $(MODEL) --host $(HOST) --port $(PORT)

test: lint  ## install what is missing, then the suite but for what is slow, file by file in two processes
	$(PYTEST) -m "not slow"

test-all: lint  ## what `make test` runs and what is marked slow; CI runs this
	$(PYTEST)

lint: .venv/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Two processes of one thread each share a step's rows: on two cores faster than one process of two threads. Batches have many
# shapes: oneDNN keeps kernels of 1,024 unless told, and glibc searches long among what was freed of others: by tcmalloc a
# step takes a tenth less. Where it is not installed the loader says so, and training goes on without.
TRAIN := CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 ONEDNN_PRIMITIVE_CACHE_CAPACITY=16384 \
	LD_PRELOAD=libtcmalloc_minimal.so.4 TCMALLOC_RELEASE_RATE=0 \
	$(BIN)/torchrun --standalone --nproc-per-node 2 -m dualfocus_training.train
model: .venv/.test  ## train the model that ships, from nothing; goes on where it was stopped
	$(TRAIN) training/recipes/small.yaml --out runs/small
	cp runs/small/model/* engine/dualfocus_engine/small/

results: .venv/.test  ## ask the model that ships about held-out scenes in each mode; writes docs/results.md and performance.md
	$(BIN)/python -m dualfocus_eval.results
	$(BIN)/python -m loadtests.looks

bench: .venv/.bench  ## measure this machine, into runs/bench/DATE; goes on where it was stopped
	$(BIN)/python -m loadtests

gpu-check: .venv/.test  ## prove and measure on a GPU in ten minutes, into runs/gpu-check/DATE
	$(BIN)/python -m loadtests.gpu_check

soak: .venv/.bench  ## ask for 15 minutes and watch the memory of both processes, into runs/soak/DATE
	$(BIN)/python -m loadtests.soak

image-check: .venv/.test  ## build the CPU image without a daemon, run it and ask it a question; needs root on Debian
	$(BIN)/python -m deploy.image_check

screenshot: .venv/.test  ## take docs/images/playground.png anew: the page, the sample, the model that ships
	PYTHONPATH=tests/server $(BIN)/python tests/playground/screenshot.py

parity: .venv/.parity  ## score made-up replies with lmms-eval and VLMEvalKit, into the record that the tests hold ours to
	.venv/parity/bin/python -m scripts.parity.record

clean:
	rm -rf .venv

.venv/.serve: pyproject.toml scripts/install.py
	$(PYTHON) scripts/install.py
	@touch $@

.venv/.test: pyproject.toml scripts/install.py
	$(PYTHON) scripts/install.py dev
	@touch $@ .venv/.serve .venv/.bench

.venv/.bench: pyproject.toml scripts/install.py
	$(PYTHON) scripts/install.py bench
	@touch $@ .venv/.serve

# An environment of its own: the two tools without what they depend on (torch and more), which their rules don't need.
.venv/.parity: scripts/parity/requirements.txt scripts/parity/tools.txt | .venv/.test
	$(BIN)/python -m venv --without-pip .venv/parity
	$(BIN)/python -m pip --python .venv/parity/bin/python install --quiet -r scripts/parity/requirements.txt
	$(BIN)/python -m pip --python .venv/parity/bin/python install --quiet --no-deps -r scripts/parity/tools.txt
	@touch $@
