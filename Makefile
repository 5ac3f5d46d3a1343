# The workshop's commands. The README has `lab`, `fresh` and `test` for Windows.
#   make lab      set up, then open JupyterLab on your copies of the lessons, in work/
#   make fresh    make new copies, and keep yours       make render   run the notebooks and store their outputs
#   make test     set up, then run the suite, offline   make soak     run the long tests, which are not in it
#   make lint     ruff, code and notebooks              make lock     resolve the dependencies again
#   make doctor   check whether this machine is ready   make bench    measure speed, write benchmarks/README.md
#   make clean    remove environment and caches         make site     build the website from the stored outputs
#   make viewer   build the page that reads a published cube in the browser, in build/viewer (needs npm)
#   make picture  draw the README's picture, docs/_static/cube.png, with the viewer in a browser
#   make hub      install a JupyterHub into build/hub for `make soak` (needs npm)
#   make starter TO=../my-cube   copy the starter for a cube of your own rasters into a new folder

# For another Python, `make test PYTHON_VERSION=3.13` makes a new environment.
PYTHON_VERSION ?= >=3.12,<3.14
LAB_FLAGS ?=

UV := $(shell command -v uv || echo .uv/bin/uv)
OWN_UV := $(filter .uv/bin/uv,$(UV))
RUN := .venv/bin/python
ENVIRONMENT := .venv/.ready$(if $(filter command,$(firstword $(origin PYTHON_VERSION))),-$(PYTHON_VERSION))
# Containers run as root, which Jupyter only allows with this flag.
ROOT_FLAG := $(if $(filter 0,$(shell id -u)),--allow-root)
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

# Compiled modules halve the start of every kernel, and another active environment must not interfere.
unexport PYTHONDONTWRITEBYTECODE VIRTUAL_ENV CONDA_PREFIX PYTHONPATH

.PHONY: lab fresh test soak render lock lint bench doctor site viewer picture hub starter clean setup browser viewer-where-npm-is hub-where-npm-is

lab: setup
	@$(RUN) tools/copies.py
	$(RUN) -m jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/work \
		--LabApp.workspaces_dir=.venv/lab-workspaces $(ROOT_FLAG) $(LAB_FLAGS)

fresh: setup
	@$(RUN) tools/copies.py --fresh

# CI always tests the lessons and the viewer in a browser. Elsewhere, `make test` does so if there is one.
test: setup $(if $(CI),browser viewer,viewer-where-npm-is)
	$(RUN) tests/offline.py $(RUN) -m pytest

soak: setup $(if $(CI),browser viewer hub,viewer-where-npm-is hub-where-npm-is)
	$(RUN) tests/offline.py $(RUN) -m pytest -m soak

render: setup
	$(RUN) tools/render.py
	$(RUN) -m ruff format -q notebooks solutions

lint: setup
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check

doctor: setup
	@$(RUN) -m workshop.doctor

# QUICK=1 takes under three minutes and writes into build/. On a larger machine: WORKERS="1 2 4 8" KIND=processes
bench: setup
	$(RUN) -m benchmarks $(if $(QUICK),--quick) $(if $(WORKERS),--workers $(WORKERS)) $(if $(KIND),--kind $(KIND))

# -E: Sphinx does not know that a lesson's page also depends on its answers
site: setup viewer-where-npm-is
	$(RUN) -m sphinx -q -W --keep-going -n -E -c docs -d build/doctrees . build/site
	@echo "The site is in build/site/index.html"

viewer: build/viewer/index.html
	@echo "Put the files of build/viewer into a store's folder, or add ?store=ADDRESS to the address of the page"

build/viewer/index.html: viewer/node_modules/.package-lock.json $(wildcard viewer/*.*)
	npm run --silent --prefix viewer build
	touch $@

viewer/node_modules/.package-lock.json: viewer/package-lock.json viewer/.npmrc
	npm ci --silent --prefix viewer
	touch $@

# A JupyterHub for tests/test_hub.py. It is outside .venv, where the users' servers run, with the same versions.
hub: build/hub/.ready

build/hub/.ready: $(wildcard tests/hub/*.* tests/hub/.npmrc) $(ENVIRONMENT) | $(OWN_UV)
	rm -rf build/hub
	mkdir -p build/hub
	cp tests/hub/package.json tests/hub/package-lock.json tests/hub/.npmrc build/hub
	npm ci --silent --prefix build/hub
	"$(UV)" pip install --quiet --python $(RUN) --target build/hub/python --no-deps --require-hashes \
		-r tests/hub/requirements.lock
	touch $@

picture: setup viewer browser
	$(RUN) -m tools.picture

# The shell reads TO, so it may contain spaces. A folder that is not empty is left alone.
starter:
	@case "$$TO" in \
		"") echo "TO: expected a new folder, found nothing: run make starter TO=../my-cube" >&2; exit 1;; \
		"~/"*) TO="$$HOME$${TO#\~}";; \
	esac; \
	if [ -n "$$(ls -A "$$TO" 2>/dev/null)" ]; then \
		echo "$$TO: expected a new or empty folder, found files in it: choose another one" >&2; exit 1; \
	fi; \
	mkdir -p "$$TO" && cp -R starter/. "$$TO" && rm -rf "$$TO/__pycache__" && echo "Start with $$TO/README.md"

# Offline, an earlier build is used. Without one, the site and the tests do without.
viewer-where-npm-is hub-where-npm-is: %-where-npm-is:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $* || echo "The $* was not built"; \
		else echo "The $* was not built, because there is no npm"; fi

setup: $(ENVIRONMENT)
	$(RUN) -m workshop.sample

# For Debian and Ubuntu. GitHub's machines have Chrome and its driver.
browser:
	@if ! command -v chromedriver && [ -z "$$CHROMEWEBDRIVER" ]; then \
		$(SUDO) apt-get -qq update && \
		$(SUDO) apt-get -qq install --yes --no-install-recommends chromium chromium-driver fonts-dejavu-core >/dev/null; \
	fi

$(ENVIRONMENT): requirements.lock pyproject.toml | $(OWN_UV)
	@echo "Installing the packages into .venv: about 1.6 GB, a minute or less"
	"$(UV)" venv --quiet --clear --python "$(PYTHON_VERSION)" .venv
	"$(UV)" pip sync --quiet --python $(RUN) --require-hashes requirements.lock
	"$(UV)" pip install --quiet --python $(RUN) --no-deps --editable .
	$(RUN) -m jupyter labextension disable --level=sys_prefix @jupyterlab/apputils-extension:announcements >/dev/null 2>&1
	touch $@

.uv/bin/uv:
	python3 -m pip install --quiet --target .uv uv

lock: | $(OWN_UV)
	"$(UV)" run --no-project --python "$(PYTHON_VERSION)" tools/lock.py
	"$(UV)" pip compile --quiet --upgrade --universal --python-version 3.12 --generate-hashes --no-annotate --no-emit-index-url \
		--custom-compile-command "make lock" --constraint requirements.lock \
		tests/hub/requirements.in -o tests/hub/requirements.lock

clean:
	rm -rf .venv .uv build viewer/node_modules .pytest_cache .ruff_cache notebooks/.ipynb_checkpoints solutions/.ipynb_checkpoints
