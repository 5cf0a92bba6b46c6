# `make demo` and `make test` set everything up themselves; the rest is for people who work on the code.
VENV ?= .venv
PYTHON ?= python3
TORCH ?= torch==2.13.0
RUN = $(VENV)/bin
PIP = $(RUN)/python -m pip install -q --no-compile
# uv is quicker; pip takes over where the index has no uv, or where only pip knows of an index. Neither compiles bytecode.
INSTALL = { [ -x $(RUN)/uv ] && $(RUN)/uv pip install -q --python $(RUN)/python $(1); } || $(PIP) $(1)

# The environment of a machine with a card: it has a CUDA build of torch, which is not ours to install.
GPU_PYTHON ?= python3
GPU_KIT ?= build/kit
GPU_SECONDS ?= 450
GPU_ARGS ?=
# A CPython here of the version that the machine has, for the kit's CPU modules.
GPU_CPYTHON ?= python3.12
, := ,

.PHONY: contract demo test tests test-all bench needs gpu gpu-again gpu-kit gpu-test soak sanitize sanitize-addresses \
  sanitize-threads lint docs build libraries clean

demo: $(VENV)/package
	@echo "the main figure over 1024 runs (a quarter of a minute)"
	$(RUN)/fastsgd reproduce S1 --out demo

# Bytecode is kept, whatever the machine's habit: the suite starts some two hundred processes.
test: export PYTHONDONTWRITEBYTECODE =
test: needs
	@$(MAKE) --no-print-directory -j 2 lint tests

tests:
	$(RUN)/python -m pytest -n auto --dist loadgroup $(PYTEST_ARGS)

# Before a release: whole products of cases, more kills, sanitized kernels, every neighbour's results.
test-all:
	$(MAKE) test PYTEST_ARGS="--long $(PYTEST_ARGS)"

bench: $(VENV)/package build
	$(call INSTALL,--no-build-isolation -e ".[bench]")
	$(RUN)/fastsgd bench

# At home: everything that a card would wait for, compiled without one. What travels is the tree and GPU_KIT.
gpu-kit: $(VENV)/ready build
	PYTHONPATH=.:tests $(RUN)/python -m bench.card.kit $(GPU_KIT) --python $(GPU_CPYTHON)

# On a machine with a card: bits, speed beside opponents, profiles, sanitizers, each in its time box; the rest of the suite
# is gpu-test. GPU_ARGS: --only, --logs, --rows (docs/cuda.md).
gpu:
	PYTHONPATH=.:tests $(GPU_PYTHON) -m bench.card --limit $(GPU_SECONDS) --kit $(GPU_KIT) $(GPU_ARGS)

# After a mend, in two minutes.
gpu-again:
	$(MAKE) gpu GPU_SECONDS=120 GPU_ARGS="--only smoke,bits,kernels,whole $(GPU_ARGS)"

# What compiles without a card is tested where there is none.
gpu-test: export OMP_NUM_THREADS = 1
gpu-test:
	FASTSGD_CUDA=on $(GPU_PYTHON) setup.py -q build_ext --inplace
	PYTHONPATH=. $(GPU_PYTHON) -m pytest -n auto -vv --tb=short --long -k "(cuda or triton) and not aot and not resources"

# The words that cross languages, written where the kernels read them; fastsgd/lowering/words.py collects them.
contract: $(VENV)/ready
	$(RUN)/python -c "from fastsgd.lowering import words; words.write()"

# Runs made at random, each done in many ways that must not change a bit, and runs that are killed. SOAK_SEED repeats one.
SOAK_SECONDS ?= 600
SOAK_SEED ?= $(shell date +%s)
SOAK_KILLS ?= 100

soak: build
	$(RUN)/python tests/soak.py --seconds $(SOAK_SECONDS) --seed $(SOAK_SEED) --kills $(SOAK_KILLS)

# The modules under AddressSanitizer and UBSan, then under ThreadSanitizer; each in a tree of its own, from which the
# tests are run, for it comes before the checkout on Python's path. ThreadSanitizer does not see what OpenMP orders, so
# that the same loops run on std::thread there (csrc/cpu/threads.cpp); addresses are not made random, for it minds. Without
# -fno-tree-sra g++ 12 ends in an internal error.
SANITIZED ?= test_bits test_general_bits test_lost test_general_lost test_orders test_elementary test_linalg \
  test_diagonal_rank test_jacobian_kernels test_metric_units test_signals test_forks
SANITIZED_RUNS ?= 60
LIBRARY = $(shell g++ -print-file-name=$(1))
# A module that does not compile ends the target: else the tests would run the one of the checkout.
SANITIZED_TREE = rm -f build/$(1)/lib/fastsgd/_cpu_*.so && \
  CXX="$(CXX)" FASTSGD_CUDA=off FASTSGD_CXXFLAGS="$(2)" $(RUN)/python setup.py -q build \
  --build-lib build/$(1)/lib --build-temp build/$(1)/temp && ls build/$(1)/lib/fastsgd/_cpu_*.so

sanitize: sanitize-addresses sanitize-threads

sanitize-addresses: $(VENV)/ready
	$(call SANITIZED_TREE,addresses,-O1 -g1 -fsanitize=address$(,)undefined -fno-sanitize-recover=all)
	cd build/addresses/lib && LD_PRELOAD="$(call LIBRARY,libasan.so) $(call LIBRARY,libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=2 sh -c '\
	  $(abspath $(RUN))/python -m pytest -q --long -p no:cacheprovider -k "not cuda and not triton" \
	  $(SANITIZED:%=$(CURDIR)/tests/%.py) && \
	  PYTHONPATH=. $(abspath $(RUN))/python $(CURDIR)/tests/soak.py --count $(SANITIZED_RUNS) --seed 1'

sanitize-threads: $(VENV)/ready
	$(call SANITIZED_TREE,threads,-O1 -g1 -fno-tree-sra -fsanitize=thread -DFS_STD_THREADS)
	cd build/threads/lib && LD_PRELOAD="$(call LIBRARY,libtsan.so)" TSAN_OPTIONS=halt_on_error=1 OMP_NUM_THREADS=3 \
	  PYTHONPATH=. setarch -R $(abspath $(RUN))/python $(CURDIR)/tests/soak.py --count $(SANITIZED_RUNS) --seed 1 --alone

lint: $(VENV)/ready
	$(RUN)/ruff check .
	$(RUN)/clang-format --dry-run -Werror $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'tests/*.h' 'tests/*.cpp')
	$(RUN)/python -m mypy

# The site in build/site, from docs/ and docstrings; a link that leads nowhere, or any warning, fails.
docs: $(VENV)/ready
	$(call INSTALL,--no-build-isolation -e ".[docs]")
	NO_MKDOCS_2_WARNING=1 PYTHONDONTWRITEBYTECODE=1 $(RUN)/python -m mkdocs build

# A new environment comes with a build.
needs:
	@$(MAKE) --no-print-directory $(if $(wildcard $(VENV)/ready),build) $(VENV)/ready

build: $(VENV)/base
	@echo "compiling the kernels for this machine (a minute or two on two cores)"
	@$(RUN)/python setup.py -q build_ext --inplace

# Quickly, by this Python's pip, if it has one that can; else with the pip that Python brings, which takes 6 s to unpack.
BASE = "setuptools>=77" "pybind11>=2.13"

$(VENV)/base: pyproject.toml
	@echo "making a virtual environment in $(VENV)"
	@{ $(PYTHON) -m venv --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(RUN)/python install -q --no-compile pip $(BASE) uv 2> /dev/null; } || \
	  { $(PYTHON) -m venv --clear $(VENV) && $(PIP) $(BASE) && { $(PIP) uv || echo "no uv: pip will do"; }; }
	@touch $@

# By pip and alone: left to a resolver, a plain `torch` would be another build than the one asked for.
$(VENV)/torch: $(VENV)/base
	@echo "installing $(TORCH), the largest part (about half a minute)"
	@$(PIP) "$(TORCH)"
	@touch $@

# package: what a run and a figure need; ready: what the tests need, too. All of it comes while units compile, if there is
# uv, which reads pyproject.toml; by pip it comes with the package.
EXTRAS_package = plots
EXTRAS_ready = test,plots,labels,sweep

$(VENV)/package $(VENV)/ready: $(VENV)/base
	@$(MAKE) --no-print-directory -j 2 build libraries EXTRAS=$(EXTRAS_$(@F))
	@$(call INSTALL,--no-build-isolation -e ".[$(EXTRAS_$(@F))]")
	@touch $(VENV)/package $@

libraries: $(VENV)/torch
	@echo "installing NumPy and the like, $(EXTRAS) (at most a minute)"
	@[ ! -x $(RUN)/uv ] || $(RUN)/uv pip install -q --python $(RUN)/python -r pyproject.toml \
	  $(addprefix --extra ,$(subst $(,), ,$(EXTRAS))) || echo "uv could not: pip will"

clean:
	rm -rf build demo *.egg-info fastsgd/*.so fastsgd/_build_info.json
