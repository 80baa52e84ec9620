# make demo   the bundled model on the bundled scene (or SCENE=my.tif), with the core install
# make test   the development environment and the whole test suite
# make env    .venv with everything; make check adds lint, types and import layers to the tests
# make docs   the documentation site, into build/site
# make labelstudio   the Label Studio server that its contract test starts, in an environment of its own

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

EXTRAS = train,tune,tensorboard,mlflow,labels,onnx,parquet,export,serve,video,ray,s3
LOCK = constraints.txt
STAMP = .installed-$(shell cat pyproject.toml $(LOCK) | cksum | cut -d' ' -f1)
SERVER_STAMP = .installed-$(shell cksum < requirements-labelstudio.txt | cut -d' ' -f1)

.PHONY: demo test env labelstudio check lint types layers docs clean

demo: .venv-core/$(STAMP)
	@if [ -n "$(SCENE)" ]; then scene="$(SCENE)"; \
	else scene=$$(.venv-core/bin/python -c "from rooftrace.testing import demo_scene_path as p; print(p())"); fi; \
	.venv-core/bin/rooftrace predict "$$scene" -o "$(OUT)"

test: env
	.venv/bin/python -m pytest $(PYTEST_ARGS)

env: .venv/$(STAMP)

# The environment is made once for each content of pyproject.toml and the lock file.
.venv-core/$(STAMP):
	$(PYTHON) -m venv --clear .venv-core
	.venv-core/bin/python $(PIP) install -c $(LOCK) .
	touch $@

.venv/$(STAMP):
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python $(PIP) install -c $(LOCK) -e ".[$(EXTRAS)]" -r requirements-dev.txt
	touch $@

labelstudio: .venv-labelstudio/$(SERVER_STAMP)

# About 1 GB, and its packages must not meet ours. Its empty database takes half a minute to make, so
# that the tests start from a copy of this one.
.venv-labelstudio/$(SERVER_STAMP):
	$(PYTHON) -m venv --clear .venv-labelstudio
	.venv-labelstudio/bin/python $(PIP) install -r requirements-labelstudio.txt
	mkdir .venv-labelstudio/empty
	LABEL_STUDIO_BASE_DATA_DIR=$(CURDIR)/.venv-labelstudio/empty COLLECT_ANALYTICS=false \
	.venv-labelstudio/bin/label-studio version > .venv-labelstudio/empty/log 2>&1
	touch $@

check: test lint types layers

lint: env
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: env
	.venv/bin/mypy

layers: env
	.venv/bin/lint-imports --no-cache

# mkdocs-material tells of a version to come that nothing here is of.
docs: env
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

clean:
	rm -rf .venv .venv-core .venv-labelstudio out
