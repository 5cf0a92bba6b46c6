# `make demo` and `make test` set everything up themselves; the rest is for people who work on the code.
VENV ?= .venv
PYTHON ?= python3
TORCH ?= torch==2.13.0
RUN = $(VENV)/bin

# The environment of a machine with a card: it has a CUDA build of torch, which is not ours to install.
GPU_PYTHON ?= python3

.PHONY: demo test bench gpu lint build clean

demo: build
	$(RUN)/fastsgd reproduce S1 --out demo

test: build lint
	$(RUN)/python -m pytest -n auto $(PYTEST_ARGS)

bench: build
	$(RUN)/pip install -q --no-build-isolation -e ".[bench]"
	$(RUN)/fastsgd bench

gpu:
	FASTSGD_CUDA=on $(GPU_PYTHON) setup.py -q build_ext --inplace
	$(GPU_PYTHON) -m fastsgd info
	$(GPU_PYTHON) -m pytest -k "cuda or triton"
	for tool in memcheck racecheck initcheck; do \
	  compute-sanitizer --tool $$tool --error-exitcode 1 env PYTHONPATH=. $(GPU_PYTHON) tests/every_kernel.py || exit 1; done
	$(GPU_PYTHON) -m bench.gpu
	$(GPU_PYTHON) -m bench.portable

lint: $(VENV)/ready
	$(RUN)/ruff check .
	$(RUN)/clang-format --dry-run -Werror $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'tests/*.h')

build: $(VENV)/ready
	$(RUN)/python setup.py -q build_ext --inplace

# torch goes first and alone: left to the resolver, a plain `torch` would be another build than the one asked for.
$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install -q "$(TORCH)"
	$(RUN)/pip install -q "setuptools>=77" "pybind11>=2.13"
	$(RUN)/pip install -q --no-build-isolation -e ".[test,plots,labels]"
	touch $@

clean:
	rm -rf build demo *.egg-info fastsgd/*.so fastsgd/_build_info.json
