PYTHON ?= python3
ARGS ?=
SECONDS ?= 300
# The image that the container's is built on; without one, Debian's Python, made by debootstrap.
PYTHON_IMAGE ?=

BIN := .venv/bin
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run test test-newest image-test lint types docs bench soak clients-soak \
	release-check constraints format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/.runtime ## Serve an agent; ARGS="--config FILE" and the like are handed on
	$(BIN)/agentws serve $(ARGS)

test: .venv/.dev .venv/.node ## Run all tests, those of the import rules among them
	$(BIN)/pytest $(ARGS)

# Without what runs programs that no index of packages brings, without the long random runs, and
# without the client in JavaScript, which needs none of the packages. Two files at a time, as tests
# wait half of their time; with what is left out here, they would be in each other's way.
test-newest: .venv/.pip .venv/.node ## Run the tests with the newest versions of everything, locked or not
	$(PYTHON) -m venv --clear .venv/newest
	.venv/newest/bin/pip install --quiet --upgrade pip
	.venv/newest/bin/pip install --quiet --upgrade --editable '.[azure,redis,uvloop]' --group dev
	@echo "Newer than those of constraints.txt:"
	@.venv/newest/bin/pip freeze --exclude-editable | grep -vxFf constraints.txt || echo "nothing"
	.venv/newest/bin/pytest -n 2 --dist loadfile $(ARGS) --ignore=tests/clients \
		-m "not browser and not image and not gateway and not prometheus and not random and not soak"

image-test: .venv/.dev ## Build the container image and run it, with buildah; PYTHON_IMAGE names its base
	PYTHON_IMAGE=$(PYTHON_IMAGE) $(BIN)/pytest -m image $(ARGS)

lint: .venv/.dev ## Check style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/.dev .venv/.docs ## Check types
	$(BIN)/mypy agentws bench tests deploy docs $(wildcard examples)

docs: .venv/.docs ## Write the page of the settings, and build the site of docs/ into .site
	$(BIN)/python -m docs.settings_page
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: .venv/.dev .venv/.node .venv/.bench ## Compare speed, memory and start-up; ARGS="--only invoke-50" a part
	$(BIN)/python -m bench $(ARGS)

soak: .venv/.dev .venv/.node ## Keep up a load for SECONDS, and fail if anything grew or, with Redis or sockets in trouble, was lost
	$(BIN)/python -m bench.soak --seconds $(SECONDS)
	$(BIN)/pytest -q -rP -m soak --soak-seconds $(SECONDS)
	$(BIN)/pytest -q -m hypothesis --hypothesis-profile=soak

clients-soak: .venv/.dev .venv/.node ## Cut clients off at random for SECONDS, and fail if anything was lost or done twice
	$(BIN)/pytest -q -rP -m soak --soak-seconds $(SECONDS) tests/client tests/clients

CARRIES_CLIENT = import importlib.resources as r; (r.files("agentws") / "console/static/agentws.js").read_text()

release-check: .venv/.release test-newest ## Do all that a release does, and publish nothing; TAG=vX.Y.Z names it
	rm -rf dist
	$(BIN)/python deploy/release_notes.py $(TAG)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv --clear .venv/released
	.venv/released/bin/pip install --quiet --constraint constraints.txt --upgrade pip
	.venv/released/bin/pip install --quiet --constraint constraints.txt dist/*.whl
	cd dist && ../.venv/released/bin/agentws check >/dev/null
	cd dist && ../.venv/released/bin/python -c '$(CARRIES_CLIENT)'

BUILD_NEEDS = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])

constraints: .venv/.pip ## Refresh constraints.txt: the newest versions, all to be tested before a commit
	$(PYTHON) -m venv --clear .venv/locked
	.venv/locked/bin/pip install --quiet --upgrade pip
	.venv/locked/bin/pip install --quiet --editable '.[azure,redis,uvloop]' --group dev --group docs --group release \
		$$($(BIN)/python -c '$(BUILD_NEEDS)')
	{ head -n 1 constraints.txt; .venv/locked/bin/pip freeze --all --exclude-editable; } >.venv/locked.txt
	mv .venv/locked.txt constraints.txt

format: .venv/.dev ## Put style and format right where a tool can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## Remove the virtual environment and all that was made from the sources
	rm -rf .venv .image .site clients/javascript/node_modules dist
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# A release of Python brings a pip of its time, which may not resolve what was published since.
.venv/.pip: constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --upgrade pip
	touch $@

.venv/.runtime: .venv/.pip pyproject.toml constraints.txt
	$(PIP_INSTALL) --build-constraint constraints.txt --editable '.[azure,redis,uvloop]'
	touch $@

.venv/.dev: .venv/.runtime
	$(PIP_INSTALL) --group dev
	touch $@

# What the daemon is compared with, whose dependencies are not ours.
.venv/.bench: bench/requirements.txt | .venv/.pip
	$(PYTHON) -m venv --clear .venv/bench
	.venv/bench/bin/pip install --quiet --disable-pip-version-check --requirement bench/requirements.txt
	touch $@

.venv/.docs: .venv/.runtime
	$(PIP_INSTALL) --group docs
	touch $@

# The client in JavaScript is tested with a Node of its own, as the machine's may be too old.
.venv/.node: clients/javascript/package-lock.json | .venv/.pip
	@if command -v npm >/dev/null; then \
		npm ci --prefix clients/javascript --no-audit --no-fund --loglevel=error && touch $@; \
	else \
		echo "Without npm, tests of the client in JavaScript are skipped" >&2; \
	fi

.venv/.release: .venv/.runtime
	$(PIP_INSTALL) --group release
	touch $@
