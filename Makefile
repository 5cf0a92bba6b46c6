# `make demo` and `make test` set everything up themselves; the rest is for people who work on the code.
VENV ?= .venv
PYTHON ?= python3
TORCH ?= torch==2.13.0
RUN = $(VENV)/bin

# The environment of a machine with a card: it has a CUDA build of torch, which is not ours to install.
GPU_PYTHON ?= python3
GPU_WORKERS ?= 12
GPU_ROWS ?= bench/data/gpu.csv
GPU_LOGS ?= build/gpu
SANITIZERS = memcheck racecheck initcheck synccheck

.PHONY: demo test bench gpu gpu-build gpu-test gpu-bench gpu-portable gpu-sanitize $(SANITIZERS:%=gpu-%) lint build clean

demo: build
	$(RUN)/fastsgd reproduce S1 --out demo

test: build lint
	$(RUN)/python -m pytest -n auto --dist loadgroup $(PYTEST_ARGS)

bench: build
	$(RUN)/pip install -q --no-build-isolation -e ".[bench]"
	$(RUN)/fastsgd bench

# Each part can be asked for alone; a part that fails does not keep the others from running.
gpu gpu-build gpu-test gpu-bench gpu-portable gpu-sanitize $(SANITIZERS:%=gpu-%): export PYTHONPATH := $(CURDIR)

gpu:
	$(MAKE) -k gpu-test gpu-bench gpu-sanitize gpu-portable

gpu-build:
	FASTSGD_CUDA=on $(GPU_PYTHON) setup.py -q build_ext --inplace
	$(GPU_PYTHON) -m fastsgd info

# What compiles without a card is tested where there is none.
gpu-test: export OMP_NUM_THREADS = 1
gpu-test: gpu-build
	$(GPU_PYTHON) -m pytest -n $(GPU_WORKERS) -vv --tb=short -k "(cuda or triton) and not aot and not resources"

gpu-bench: gpu-build
	$(GPU_PYTHON) -m bench.gpu --rows $(GPU_ROWS)

# FASTSGD_TRITON_TUNE=auto compiles eight choices a system as well, and takes the fastest.
gpu-portable: export FASTSGD_TRITON_TUNE ?= off
gpu-portable: gpu-build
	$(GPU_PYTHON) -m bench.portable

gpu-sanitize: gpu-build
	$(MAKE) -k -j $(words $(SANITIZERS)) $(SANITIZERS:%=gpu-%)

# Tensors are allocated one by one, else what lies beyond one is inside torch's pool; torch asks the driver for functions
# that it lacks, which is no error.
$(SANITIZERS:%=gpu-%): gpu-%:
	@mkdir -p $(GPU_LOGS)
	PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $* --error-exitcode 1 --launch-timeout 0 \
	  --report-api-errors no $(GPU_PYTHON) tests/every_kernel.py > $(GPU_LOGS)/$*.log 2>&1 \
	  || { tail -n 60 $(GPU_LOGS)/$*.log; exit 1; }
	@tail -n 1 $(GPU_LOGS)/$*.log

lint: $(VENV)/ready
	$(RUN)/ruff check .
	$(RUN)/clang-format --dry-run -Werror $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'tests/*.h' 'tests/*.cpp')

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
