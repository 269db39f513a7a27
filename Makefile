# Needs only make, /bin/sh and Python 3.11 or newer: everything else goes into .venv.
# PYTHON=/path/to/python chooses the interpreter; it counts when .venv is made (`make clean` removes it).

PYTHON ?=
PY = .venv/bin/python
CI = .venv-ci/bin
DOCS = .venv-docs/bin
INSTALL = sh scripts/install.sh
# built with the hatchling that the lock brings
INSTALL_CLIENT = $(PY) -m pip --disable-pip-version-check --no-input install --quiet --no-index --no-deps --no-build-isolation --force-reinstall ./client
CLIENT = client/pyproject.toml client/hatch_build.py client/README.md $(wildcard client/src/guichet/*.py client/src/guichet/*/*.py)
# BuildKit builds only the stages that are needed
BUILD = DOCKER_BUILDKIT=1 $(DOCKER) build $(DOCKER_BUILD) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(or $(REVISION),unknown)
NEWER = import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < $(1))
LOCK = $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
# what .venv holds is compiled once, and not again by each of the processes that the tests start
unexport PYTHONDONTWRITEBYTECODE
# what `make test` and `make test-long` run
TESTS = not long and not interop and not fuzz and not lint and not e2e
XDIST = -n 4 --dist loadfile --no-loadscope-reorder
NOTEBOOK = docs/tutorials/churn.ipynb
ARGS =
# CHROMIUM=/path/to/chromium says which browser is used; scripts/chromium.sh finds one otherwise
BROWSER = sh scripts/chromium.sh
NO_BROWSER = there is no Chromium here$(if $(CHROMIUM),: CHROMIUM=$(CHROMIUM) is none), and none could be installed: \
    install it (Debian: apt install chromium), or say where it is: CHROMIUM=
DOCKER ?= docker
# the images' tag: the one that is released, or none in particular
IMAGE_TAG = $(if $(TAG),$(patsubst v%,%,$(TAG)),latest)
PLAIN = case "$$TAG$$REVISION" in *[!A-Za-z0-9._-]*) \
    echo "make: TAG and REVISION are made of letters, digits, dots, dashes and underscores" >&2; exit 1;; esac
VERSION = $(shell sed -n 's/^VERSION = "\(.*\)"/\1/p' shared/version.py)
IMAGES = guichet-api guichet-sync guichet-worker

.DEFAULT_GOAL := help
.PHONY: help architecture package run notebook test test-long browser coverage coverage-summary faults interop fuzz openapi-lint stores e2e e2e-compose check format format-check lint types \
    lock docs docs-serve screenshots slides monitoring bench bench-capacity bench-console bench-csv bench-explain bench-guards bench-lists bench-monitoring bench-observability bench-replay bench-shadow bench-training migration schema samples dockerfile errors french model-cards routes client-reference settings clean audit sbom workflows images push-images space \
    space-image deploy rollback smoke release-notes publish-release

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

run: .venv/.installed ## Start everything on this machine (RUNTIME=sync, PORT=, FLOWER_PORT=, DATA_DIR=)
	@exec $(PY) -m scripts.local.run

notebook: .venv/.installed-dev ## Run every cell of the notebook before the service of `make run` (NOTEBOOK=docs/fr/churn.ipynb, GUICHET_URL=)
	.venv/bin/jupyter execute --inplace $(NOTEBOOK)

test: .venv/.installed-dev browser ## Run the tests without the long flows, four files at a time (ARGS="-n 0 -k name" for some of them)
	$(PY) -m pytest $(XDIST) -m "$(TESTS) and not flow" $(ARGS)

test-long: .venv/.installed-dev ## Run the long flows: whole registrations, trainings, reproductions, tutorials, the notebook
	$(PY) -m pytest $(XDIST) -m "$(TESTS) and flow" $(ARGS)

coverage: .venv/.installed-dev browser ## Run both and measure what they cover, also in the processes that they start
	$(PY) -m pytest $(XDIST) -m "$(TESTS)" --cov --cov-branch --cov-report=term --cov-report=xml $(ARGS)

browser: .venv/.installed-dev # Chromium, where it can be had: without it, the tests go on and say what they leave out
	@$(MAKE) --silent .venv/.installed-e2e || echo "make: the tests go on without a browser" >&2

coverage-summary: .venv/.installed-dev # what GitHub shows beside the run
	$(PY) -m coverage report --format=markdown >> "$${GITHUB_STEP_SUMMARY:-/dev/stdout}"

faults: .venv/.installed-dev ## Kill workers in the middle of jobs and files, let rows crash and hang: the long tests
	$(PY) -m pytest -m long $(ARGS)

interop: .venv/.installed-dev .venv-interop/.installed ## Ask with other people's clients, and compare with a real MLServer and MLflow
	$(PY) -m pytest -m interop tests/interop $(ARGS)

fuzz: .venv/.installed-dev ## Try to break a running service: Schemathesis, hostile HTTP, races, mutants, a soak
	$(PY) -m pytest -m fuzz -s tests/fuzz $(ARGS)

openapi-lint: .venv/.installed-dev tests/lint/node_modules/.installed ## Lint /openapi.json of each runtime and AUTH (Redocly; needs Node.js)
	$(PY) -m pytest -m lint -s tests/lint $(ARGS)

stores: .venv/.installed-dev ## Model stores, with a real S3 server and a stand-in of the hub: some of it is long
	$(PY) -m pytest tests/stores $(ARGS)

check: format-check lint types test test-long ## Format, lint, types, all tests: what CI runs

format: .venv/.installed-dev ## Format the code and mend what the linter can mend
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

format-check: .venv/.installed-dev
	$(PY) -m ruff format --check .

lint: .venv/.installed-dev ## Lint
	$(PY) -m ruff check .

types: .venv/.installed-dev ## Check the types
	$(PY) -m mypy

e2e: .venv/.installed-dev .venv/.installed-e2e ## Look at every page of the console in Chromium, on both runtimes; screenshots in .e2e/
	$(PY) -m pytest -m e2e tests/e2e $(ARGS)

e2e-compose: .venv/.installed ## Start docker-compose.yml, use it, break it under load; writes docs/compose.md (ARGS="--only redis")
	$(PY) -m scripts.drills.e2e $(ARGS)

package: .venv/.installed-dev ## Build the client's wheel and sdist, guichet-client, in dist/
	$(PY) -m uv build --quiet --offline --no-build-isolation --python $(PY) --out-dir dist client

bench: .venv/.installed-dev ## Measure the queue
	$(PY) benchmarks/queue.py $(ARGS)

bench-capacity: .venv/.installed-dev ## Measure latency at several loads beside Erlang's formula
	$(PY) -m benchmarks.capacity $(ARGS)

bench-csv: .venv/.installed-dev ## Measure CSV files
	$(PY) benchmarks/bulk.py $(ARGS)

bench-replay: .venv/.installed-dev ## Measure a replay beside a CSV file of the same rows
	$(PY) -m benchmarks.replay $(ARGS)

bench-explain: .venv/.installed-dev ## Measure explanations, beside shap where it is installed
	$(PY) benchmarks/explain.py $(ARGS)

bench-guards: .venv/.installed-dev ## Measure what the guards of the API cost a submission, beside the same API without them
	$(PY) -m benchmarks.guards $(ARGS)

bench-training: .venv/.installed-dev ## Measure trainings of the examples beside a script written by hand
	$(PY) -m benchmarks.training $(ARGS)

bench-observability: .venv/.installed-dev ## Measure requests with metrics and logs beside the same service without them
	$(PY) -m benchmarks.observability $(ARGS)

bench-shadow: .venv/.installed-dev ## Measure requests to a model with a challenger beside the same service without one
	$(PY) -m benchmarks.shadow $(ARGS)

bench-lists: .venv/.installed-dev ## Measure pages of the list of jobs among a million
	$(PY) -m benchmarks.lists $(ARGS)

bench-console: .venv/.installed-dev .venv/.installed-e2e ## Measure the console over HTTP: first view, lists among a million jobs, viewers
	$(PY) -m benchmarks.console $(ARGS)

bench-monitoring: .venv/.installed-dev ## Measure drift by counters beside a scan of the rows
	$(PY) -m benchmarks.monitoring $(ARGS)

migration: .venv/.installed ## Write the next migration from the tables: make migration m="add outcomes"
	@exec $(PY) -m scripts.generate.migration "$$m"

schema: .venv/.installed ## Write docs/schema.sql, schema.md and schema.svg from the tables
	@$(PY) -m scripts.generate.schema

samples: .venv/.installed ## Write docs/samples: inputs and outputs as CSV and SQL
	@$(PY) -m scripts.generate.samples

architecture: .venv/.installed ## Write the table of rooms of docs/architecture.md from their charters
	@$(PY) -m scripts.generate.architecture

dockerfile: .venv/.installed ## Write Dockerfile, for `docker build .`, from Dockerfile.api and deploy/space
	@$(PY) -m scripts.generate.dockerfile

model-cards: .venv/.installed ## Write the figures of docs/model-cards from the examples' generators (trains them)
	@$(PY) -m scripts.generate.model_cards

french: .venv/.installed ## Set the typography of the French pages: no-break spaces, apostrophes
	@$(PY) -m scripts.generate.french

errors: .venv/.installed ## Write docs/errors.md from shared/errors.py
	@$(PY) -m scripts.generate.errors

routes: .venv/.installed ## Write docs/routes from the OpenAPI document and the examples of its operations
	@$(PY) -m scripts.generate.reference.routes

client-reference: .venv/.installed ## Write docs/client-reference.md from the docstrings of the client package
	@$(PY) -m client.reference

settings: .venv/.installed ## Write docs/settings.md from shared/config/settings.py
	@$(PY) -m scripts.generate.settings

lock: .venv/.installed-dev ## Compile requirements.in and requirements/*.in to pinned, hashed files (UPGRADE=--upgrade for newer ones)
	$(LOCK) $(UPGRADE) requirements.in requirements/dev.in -o requirements/dev.txt
	for name in requirements requirements/api requirements/sync requirements/worker requirements/tracing requirements/uv requirements/e2e; do \
	    cp requirements/dev.txt $$name.txt && $(LOCK) $$name.in -o $$name.txt || exit 1; \
	done  # uv keeps the pins that it finds in its output: every file has the same ones
	sed -nE 's/^((numpy|scipy|pandas|joblib|scikit-learn|lightgbm)==[^\\]*).*/\1/p' requirements/dev.txt > .venv/models.txt
	$(LOCK) $(UPGRADE) -c .venv/models.txt requirements/interop.in -o requirements/interop.txt
	$(LOCK) $(UPGRADE) requirements/ci.in -o requirements/ci.txt
	$(LOCK) $(UPGRADE) requirements/docs.in -o requirements/docs.txt
	$(PY) -m scripts.generate.uv_lock  # pyproject.toml and uv.lock, with the versions of requirements/dev.txt

docs: .venv-docs/.installed ## Build the site of docs/ into site/, with every link and anchor checked
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/python -m mkdocs build --strict $(ARGS)
	@echo "written: site/index.html"

# One file of HTML and one PDF a language. CHROMIUM=/path/to/chromium prints the PDF.
slides: requirements/slides/node_modules/.installed ## Make the slides of docs/presentation, as HTML and PDF in slides/ (needs Node.js and Chromium)
	@$(BROWSER) >/dev/null || { echo "make: $(NO_BROWSER)" >&2; exit 1; }
	@mkdir -p slides/presentation && cp docs/front.png docs/front.fr.png slides/ && cp docs/presentation/processes.svg slides/presentation/
	@for language in en fr; do for form in html pdf; do \
	    CHROME_PATH="$$($(BROWSER))" requirements/slides/node_modules/.bin/marp --theme-set docs/presentation/guichet.css --allow-local-files \
	        --pdf-notes --browser chrome --no-stdin docs/presentation/slides.$$language.md -o slides/presentation/guichet.$$language.$$form </dev/null || exit 1; \
	done; done
	@echo "written: slides/presentation/guichet.en.pdf, guichet.fr.pdf, and the same as HTML"

# A new service: the pictures show its models and no other ones.
screenshots: .venv/.installed-e2e ## Take the pictures of the documentation: make screenshots URL=http://127.0.0.1:8000
	@CHROMIUM="$$($(BROWSER))" $(PY) -m scripts.generate.reference.screenshots "$$URL"

docs-serve: .venv-docs/.installed ## Show the site of docs/ on http://127.0.0.1:8008, anew after each change (ARGS="-a 127.0.0.1:9000")
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/python -m mkdocs serve --livereload --dev-addr 127.0.0.1:8008 $(ARGS)

audit: .venv-ci/.installed ## Look for known vulnerabilities in what is pinned
	@# --strict: a package that could not be looked up is no package without vulnerabilities
	$(CI)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements.txt -r requirements/tracing.txt -r requirements/ci.txt -r requirements/docs.txt

sbom: .venv-ci/.installed ## List the parts of the service and of each image (CycloneDX), in sbom/
	@mkdir -p sbom
	@for file in requirements.txt $(filter-out %/dev.txt %/ci.txt %/docs.txt %/e2e.txt %/interop.txt,$(wildcard requirements/*.txt)); do \
	    $(CI)/cyclonedx-py requirements "$$file" --pyproject pyproject.toml --of JSON --sv 1.6 \
	        -o "sbom/$$(basename "$$file" .txt).cdx.json" 2>/dev/null || { echo "make: no SBOM of $$file" >&2; exit 1; }; \
	    echo "sbom/$$(basename "$$file" .txt).cdx.json"; \
	done

workflows: .venv-ci/.installed ## Check the workflows of .github against their schema, and what they let others do
	$(CI)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(CI)/check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	$(CI)/zizmor --offline --no-progress .github

monitoring: ## Check the alerts of deploy/monitoring and try them on made-up numbers (needs promtool, which comes with Prometheus)
	@command -v promtool >/dev/null || { echo "make: promtool is not installed: it comes with Prometheus (Debian: apt install prometheus)" >&2; exit 1; }
	promtool check rules deploy/monitoring/rules.yml
	cd deploy/monitoring && promtool test rules rules_test.yml

images: ## Build the images (DOCKER_BUILD="--network host" and the like; TAG=v1.2.3 REVISION=)
	@$(PLAIN)
	$(BUILD) -f Dockerfile.api --target queue -t guichet-api:$(IMAGE_TAG) .
	$(BUILD) -f Dockerfile.api --target sync -t guichet-sync:$(IMAGE_TAG) .
	$(BUILD) -f Dockerfile.worker -t guichet-worker:$(IMAGE_TAG) .

push-images: # REGISTRY=ghcr.io/owner REGISTRY_USER= REGISTRY_TOKEN= TAG=v1.2.3
	@$(PLAIN)
	@[ -n "$$REGISTRY" ] && [ -n "$$TAG" ] || { echo "make: which REGISTRY, and which TAG?" >&2; exit 1; }
	@printf %s "$$REGISTRY_TOKEN" | $(DOCKER) login "$${REGISTRY%%/*}" --username "$$REGISTRY_USER" --password-stdin
	@owner=$$(printf %s "$$REGISTRY" | tr '[:upper:]' '[:lower:]'); for image in $(IMAGES); do \
	    $(DOCKER) tag "$$image:$(IMAGE_TAG)" "$$owner/$$image:$(IMAGE_TAG)" && \
	    $(DOCKER) push "$$owner/$$image:$(IMAGE_TAG)" || exit 1; \
	done

space: .venv/.installed ## Write the Hugging Face Space into a folder: make space DIR=/tmp/space
	@$(PY) -m scripts.space.deploy --dry-run "$$DIR"

space-image: .venv/.installed ## Build the image of the Space, and try it out in containers
	@DOCKER="$(DOCKER)" $(PY) -m scripts.space.try_out $(ARGS)

deploy: .venv-ci/.installed ## Push the Space and wait until it runs (SPACE_ID=, HF_TOKEN and ADMIN_KEY in the environment)
	@$(CI)/python -m scripts.space.deploy --wait 1200

rollback: .venv-ci/.installed ## Push an earlier commit of the Space again (SPACE_ID=, HF_TOKEN; REVISION=)
	@$(CI)/python -m scripts.space.deploy --wait 1200 --rollback "$$REVISION"

smoke: .venv-ci/.installed ## Try out a deployed service: make smoke URL=https://owner-name.hf.space
	@$(CI)/python -m scripts.release.smoke "$$URL" --wait 300 --version "$(VERSION)"

release-notes: .venv-ci/.installed # checks that TAG may be released, and writes what the changelog says of it
	$(CI)/python -m scripts.release.notes "$$TAG" > release-notes.md

publish-release: # release-notes.md and sbom/ of TAG, with GitHub's own command
	@# v1.2.3-rc.1 is not what somebody gets who asks for the latest
	gh release create "$$TAG" $$(case "$$TAG" in *-*) echo --prerelease;; esac) --verify-tag --title "Guichet $$TAG" --notes-file release-notes.md sbom/*.cdx.json

clean: ## Remove .venv and caches; the data (.guichet) stays
	rm -rf .venv .venv-interop .venv-ci .venv-docs .e2e site slides tests/lint/node_modules requirements/slides/node_modules dist sbom release-notes.md .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* coverage.xml
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@if [ -n "$(PYTHON)" ]; then \
	    python="$(PYTHON)"; \
	    "$$python" -c '$(call NEWER,(4,))' 2>/dev/null || { \
	        echo "make: PYTHON=$$python is not a Python 3.11 or newer with venv." >&2; exit 1; }; \
	else \
	    python=; \
	    for name in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	        if [ -z "$$python" ] && $$name -c "$(call NEWER,(3, 15))" 2>/dev/null; then python=$$name; fi; \
	    done; \
	    [ -n "$$python" ] || { \
	        echo "make: no Python 3.11 or newer with venv was found: install one, or say where it is: make PYTHON=/path/to/python" >&2; \
	        exit 1; }; \
	fi; \
	"$$python" -m venv --clear .venv

.venv/.installed: requirements.txt $(CLIENT) | $(PY)
	@echo "installing requirements.txt into .venv"
	@$(INSTALL) $(PY) requirements.txt
	@$(INSTALL_CLIENT)
	@touch $@

.venv/.installed-dev: requirements/dev.txt $(CLIENT) | $(PY)
	@echo "installing requirements/dev.txt into .venv"
	@$(INSTALL) $(PY) requirements/dev.txt
	@$(INSTALL_CLIENT)
	@touch $@

# As root on Debian, apt brings Chromium; elsewhere Playwright does, where it can download its own.
.venv/.installed-e2e: requirements/e2e.txt .venv/.installed-dev
	@echo "installing requirements/e2e.txt into .venv"
	@$(INSTALL) $(PY) requirements/e2e.txt
	@$(BROWSER) --install >/dev/null || { echo "make: $(NO_BROWSER)" >&2; exit 1; }
	@touch $@

# Other servers want other versions of what the service uses: they have an environment of their own.
.venv-interop/.installed: requirements/interop.txt | $(PY)
	@$(PY) -c '$(call NEWER,(3, 13))' || { \
	    echo "make: MLServer needs Python 3.11 or 3.12: make clean, then make interop PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "installing requirements/interop.txt into .venv-interop"
	@$(PY) -m venv --clear .venv-interop
	@$(INSTALL) .venv-interop/bin/python requirements/interop.txt
	@touch $@

.venv-ci/.installed: requirements/ci.txt | $(PY)
	@echo "installing requirements/ci.txt into .venv-ci"
	@$(PY) -m venv --clear .venv-ci
	@$(INSTALL) $(CI)/python requirements/ci.txt
	@touch $@

.venv-docs/.installed: requirements/docs.txt | $(PY)
	@echo "installing requirements/docs.txt into .venv-docs"
	@$(PY) -m venv --clear .venv-docs
	@$(INSTALL) $(DOCS)/python requirements/docs.txt
	@touch $@

requirements/slides/node_modules/.installed: requirements/slides/package-lock.json
	@npm --version >/dev/null 2>&1 || { echo "make: the slides need Node.js 18 or newer, with npm" >&2; exit 1; }
	@echo "installing Marp into requirements/slides/node_modules"
	@npm ci --prefix requirements/slides --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

tests/lint/node_modules/.installed: tests/lint/package-lock.json
	@npm --version >/dev/null 2>&1 || { echo "make: the linter of the OpenAPI document needs Node.js 20.19 or newer, with npm" >&2; exit 1; }
	@echo "installing Redocly into tests/lint/node_modules"
	@npm ci --prefix tests/lint --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
