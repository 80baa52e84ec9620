# make demo   the bundled model on the bundled scene (or SCENE=my.tif), with the core install
# make test   the development environment, then the tests of a few minutes (PYTEST_ARGS="tests/unit -x")
# make test-all   these and the campaigns, with coverage; K=jobs runs one family of the campaigns
# make env    .venv with everything; make check adds lint, types and import layers to the tests
# make fuzz   attack each reader with mutated files, MINUTES=60 each; ONLY="coco or gpkg", SEED=1
# make findings   surprising behaviour of other tools, each shown by a script in findings/
# make docs   the documentation site, into build/site
# make labelstudio   the Label Studio server and the client generator that contract tests start, apart

PYTHON ?= python3
OUT ?= out
SCENE ?=
PIP = -m pip --disable-pip-version-check --quiet

# The data of the project's own machines; elsewhere set it, or the tests that need it skip.
ifndef ROOFTRACE_DATA
ifneq ($(wildcard ../shared/data),)
export ROOFTRACE_DATA := $(abspath ../shared/data)
endif
endif

EXTRAS = train,tune,labels,onnx,parquet,points,export,serve,video,ray,s3,stac,services,sam,mcp
LOCK = constraints.txt
STAMP = .installed-$(shell cat pyproject.toml $(LOCK) | cksum | cut -d' ' -f1)
SERVER_STAMP = .installed-$(shell cksum < requirements-labelstudio.txt | cut -d' ' -f1)

# Each file runs in one process, so that what its tests share is made once.
PYTEST = .venv/bin/python -m pytest --dist loadfile

# Where bytecode is not kept, as in many containers, each process compiles all of src and tests again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-all env labelstudio check lint types layers fuzz findings docs clean

demo:
	$(PYTHON) tools/demo.py -o "$(OUT)" $(if $(SCENE),"$(SCENE)")

# What fails is run once more, alone; what passes then is named as unsteady.
test: env
	.venv/bin/python tools/run_tests.py --dist loadfile -n 2 -m "not campaign" $(PYTEST_ARGS)

# tests/README.md lists the families.
K ?=

test-all: env labelstudio
ifeq ($(K),)
	$(PYTEST) -n 2 --cov --cov-report=term --no-cov-on-fail --durations=40 $(PYTEST_ARGS)
else
	$(PYTEST) -n 2 -m campaign -k "$(K)" --durations=20 $(PYTEST_ARGS)
endif

env: .venv/$(STAMP)

# The environment is made once for each content of pyproject.toml and the lock file. pip would
# compile every module of every package, most of which no test imports: half of its processor time.
.venv/$(STAMP):
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python $(PIP) install --no-compile -c $(LOCK) -e ".[$(EXTRAS)]" -r requirements-dev.txt
	@echo "Compiling the tests once, so that each process of make test does not ..."
	@$(PYTEST) --collect-only -qq > /dev/null 2>&1 || true
	touch $@

labelstudio: .venv-labelstudio/$(SERVER_STAMP)

# About 1 GB, and its packages must not meet ours. Its empty database takes half a minute to make, so
# that the tests start from a copy of this one.
.venv-labelstudio/$(SERVER_STAMP):
	$(PYTHON) -m venv --clear .venv-labelstudio
	.venv-labelstudio/bin/python $(PIP) install --no-compile -r requirements-labelstudio.txt
	mkdir .venv-labelstudio/empty
	LABEL_STUDIO_BASE_DATA_DIR=$(CURDIR)/.venv-labelstudio/empty COLLECT_ANALYTICS=false \
	.venv-labelstudio/bin/label-studio version > .venv-labelstudio/empty/log 2>&1
	touch $@

check: test lint types layers

# Bandit prints nothing where it finds nothing, but warns of each part of a line with `# nosec`.
lint: env
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python tools/budget.py
	.venv/bin/bandit -q -c pyproject.toml -r src bench tools docs qgis -ll 2>&1 \
	| { ! grep -v "but no failed test on"; }

types: env
	.venv/bin/mypy

layers: env
	.venv/bin/lint-imports --no-cache

MINUTES ?= 60
SEED ?= 0
ONLY ?=

fuzz: env
	FUZZ_MINUTES=$(MINUTES) FUZZ_SEED=$(SEED) $(PYTEST) tests/fuzz -n auto --dist load -m "" -k "mutated and ($(or $(ONLY),mutated))"

findings:
	@for script in findings/*.sh; do echo "$$script"; bash "$$script" || exit 1; done

# mkdocs-material tells of a version to come that nothing here is of.
docs: env
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

clean:
	rm -rf .venv .venv-core .venv-labelstudio out
