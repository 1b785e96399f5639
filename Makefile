# Aperta's entry points; `make` alone lists them. Settings such as PORT, UPLOAD_DIR or DATABASE_URL pass through.

PYTHON ?= python3
PYTEST_ARGS ?=
# Processes that share the tests; each starts an S3 server and a PostgreSQL of its own. 0: one, which a debugger can stop.
TESTERS ?= 2
RECORDINGS ?= samples/meeting.flac
# Outside of the clone, so that a fresh one need not fetch the models again.
WHISPER_TEST_MODELS ?= $(HOME)/.cache/aperta-tests/models

SOURCES := backend tests benchmarks samples scripts alembic

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export ORT_DISABLE_TELEMETRY := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export PYANNOTE_METRICS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help run test test-servers test-ceph test-pyannote test-whisper test-wheel build lint format rooms schedule sample screenshot bench constraints sbom audit clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r target text; do \
		printf '  make %-15s %s\n' "$$target" "$$text"; done

run: .venv/.installed ## Install if needed, migrate the database, serve on http://127.0.0.1:8000
	@.venv/bin/aperta migrate
	@exec .venv/bin/aperta serve --auto-pull

test: .venv/.installed-dev .venv-swift/.installed ## Run the tests (PYTEST_ARGS="-k name" to choose)
	.venv/bin/python -m pytest -n $(TESTERS) --dist loadfile $(PYTEST_ARGS)

test-servers: .venv-swift/.installed ## Install the S3 server that the tests start (OpenStack Swift)

test-ceph: .venv/.installed-dev ## Run the storage tests on Ceph (needs ceph-mon ceph-mgr ceph-osd radosgw ceph-common)
	.venv/bin/python -m pytest tests/ceph $(PYTEST_ARGS)

test-pyannote: .venv-pyannote/.installed ## Run the tests of the pyannote.audio engine in an environment of its own
	.venv-pyannote/bin/python -m pytest tests/pyannote $(PYTEST_ARGS)

test-whisper: .venv-bench/.installed ## Run the tests of Whisper with real weights (215 MB, kept in WHISPER_TEST_MODELS)
	MODELS_DIR="$(WHISPER_TEST_MODELS)" .venv-bench/bin/aperta models pull base
	MODELS_DIR="$(WHISPER_TEST_MODELS)" .venv-bench/bin/aperta models pull tiny.en
	WHISPER_TEST_MODELS="$(WHISPER_TEST_MODELS)" .venv-bench/bin/python -m pytest tests/whisper $(PYTEST_ARGS)

test-wheel: .venv/.installed-dev ## Build the distributions, install the wheel elsewhere and run the service from it
	.venv/bin/python -m pytest tests/wheel $(PYTEST_ARGS)

build: .venv/.installed-dev ## Build the wheel and the source distribution, in dist
	rm -rf build dist *.egg-info
	PIP_CONSTRAINT=constraints.txt .venv/bin/python -m build

lint: .venv/.installed-dev ## Check style, types and the direction of imports
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m pip check

format: .venv/.installed-dev ## Format the code and sort its imports
	.venv/bin/ruff check --fix --select I
	.venv/bin/ruff format

rooms: ## Write the list of rooms in docs/AUDIO_ARCHITECTURE.md from the modules' docstrings
	$(PYTHON) scripts/list_rooms.py

schedule: .venv/.installed ## Write the table of periodic work in docs/AUDIO_ARCHITECTURE.md from the code
	.venv/bin/python -m scripts.list_schedule

sample: .venv/.installed ## Make the sample recording again (needs flite)
	.venv/bin/python samples/make_sample.py

screenshot: .venv/.installed-dev ## Take the README's picture of the page again (needs chromium)
	.venv/bin/python -m scripts.take_screenshot

bench: .venv-bench/.installed ## Measure speed, memory and errors on this machine (RECORDINGS="FILE FOLDER" to choose)
	.venv-bench/bin/python -m benchmarks.speech $(RECORDINGS)
	.venv-bench/bin/python -m benchmarks.whisper

constraints: ## Pin the newest versions that fit together, with their hashes, in the constraints files
	@$(call ensure_venv,.venv-constraints,--clear)
	.venv-constraints/bin/python -m pip install --quiet torch==2.13.0
	.venv-constraints/bin/python -m pip install --quiet -e '.[dev,pyannote,bench]'
	.venv-constraints/bin/python scripts/pin_versions.py make constraints >constraints.txt.new
	.venv-constraints/bin/python scripts/pin_hashes.py constraints.txt.new
	mv constraints.txt.new constraints.txt
	@$(call ensure_venv,.venv-constraints,--clear)
	.venv-constraints/bin/python -m pip install --quiet swift
	.venv-constraints/bin/python scripts/pin_versions.py make constraints >constraints-swift.txt.new
	.venv-constraints/bin/python scripts/pin_hashes.py constraints-swift.txt.new
	mv constraints-swift.txt.new constraints-swift.txt
	@$(call ensure_venv,.venv-constraints,--clear)
	.venv-constraints/bin/python -m pip install --quiet cyclonedx-bom pip-audit
	.venv-constraints/bin/python scripts/pin_versions.py make constraints >constraints-supply.txt.new
	.venv-constraints/bin/python scripts/pin_hashes.py constraints-supply.txt.new
	mv constraints-supply.txt.new constraints-supply.txt
	rm -rf .venv-constraints

sbom: .venv-supply/.installed ## List the server's pinned packages as CycloneDX, in dist/sbom.json
	mkdir -p dist
	$(PYTHON) scripts/hashed_requirements.py constraints.txt server | .venv-supply/bin/cyclonedx-py requirements \
		--pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.json -

audit: .venv-supply/.installed ## Look up known vulnerabilities of the server's pinned packages (skipped without an index)
	.venv-supply/bin/python scripts/audit_packages.py

clean: ## Remove environments, caches and builds; recordings and databases stay
	rm -rf .venv .venv-swift .venv-pyannote .venv-bench .venv-constraints .venv-supply build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# Each environment carries a stamp newer than the files it was installed from, so that a second run needs no network.

.venv/.installed: pyproject.toml setup.py constraints.txt
	@$(call ensure_venv,.venv)
	@echo "Installing Aperta into .venv, which takes a minute or two"
	@$(call install_hashed,.venv,server)
	@touch $@

.venv/.installed-dev: pyproject.toml setup.py constraints.txt
	@$(call ensure_venv,.venv)
	@echo "Installing Aperta and its development tools into .venv, which takes a minute or two"
	@$(call install_hashed,.venv,dev)
	@touch .venv/.installed $@

.venv-swift/.installed: constraints-swift.txt
	@$(call ensure_venv,.venv-swift)
	@echo "Installing OpenStack Swift, the tests' S3 server, into .venv-swift"
	@$(call install_pinned,.venv-swift,constraints-swift.txt)
	@touch $@

# A torchaudio whose own extension does not fit the pinned torch is used without it: pyannote.audio needs none of it for
# recordings in memory.
.venv-pyannote/.installed: pyproject.toml setup.py constraints.txt
	@$(call ensure_venv,.venv-pyannote)
	@echo "Installing PyTorch and pyannote.audio into .venv-pyannote, which takes some minutes"
	@.venv-pyannote/bin/python -m pip install --quiet -c constraints.txt -e '.[dev,pyannote]'
	@.venv-pyannote/bin/python -c 'import torchaudio' 2>/dev/null || \
		rm -f .venv-pyannote/lib/python3*/site-packages/torchaudio/lib/_torchaudio.abi3.so
	@touch $@

.venv-bench/.installed: pyproject.toml setup.py constraints.txt
	@$(call ensure_venv,.venv-bench)
	@echo "Installing Aperta and what its benchmarks need into .venv-bench, which takes a minute or two"
	@.venv-bench/bin/python -m pip install --quiet -c constraints.txt -e '.[dev,bench]'
	@touch $@

# PyTorch has other builds, with other hashes, on other indexes: what needs it is installed by version alone.

.venv-supply/.installed: constraints-supply.txt
	@$(call ensure_venv,.venv-supply)
	@$(call install_pinned,.venv-supply,constraints-supply.txt)
	@touch $@

# $(call install_pinned,FOLDER,CONSTRAINTS[,SET]): what CONSTRAINTS pins, or the part of it that SET needs. A file whose
# hash is not in there is not installed.
install_pinned = $(1)/bin/python scripts/hashed_requirements.py $(2) $(3) >$(1)/requirements.txt && \
	$(1)/bin/python -m pip install --quiet --require-hashes --no-deps -r $(1)/requirements.txt

# $(call install_hashed,FOLDER,SET): Aperta itself, too.
install_hashed = $(call install_pinned,$(1),constraints.txt,$(2)) && \
	$(1)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .

# $(call ensure_venv,FOLDER[,--clear]): a working environment in FOLDER, or one sentence that says what is missing.
ensure_venv = command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo "Python 3.11 or newer is needed, and there is no $(PYTHON): apt-get install python3 python3-venv" >&2; exit 1; }; \
	$(PYTHON) scripts/check_python.py || exit 1; \
	test -z "$(2)" && $(1)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(1)
