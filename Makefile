# The workshop's commands; the README spells `lab` and `test` out for Windows.
#   make lab      set up, then open JupyterLab          make render   execute the notebooks and store their outputs
#   make test     set up, then run the suite, offline   make soak     run the tests that take long, and are not in it
#   make lint     ruff, code and notebooks              make lock     resolve the dependencies anew
#   make doctor   say whether this machine is ready     make bench    measure speed, write benchmarks/README.md
#   make clean    remove environment and caches         make site     build the web site from the stored outputs

# Another Python: `make test PYTHON_VERSION=3.13` makes a new environment with it.
PYTHON_VERSION ?= >=3.12,<3.14
LAB_FLAGS ?=

UV := $(shell command -v uv || echo .uv/bin/uv)
OWN_UV := $(filter .uv/bin/uv,$(UV))
RUN := .venv/bin/python
ENVIRONMENT := .venv/.ready$(if $(filter command,$(firstword $(origin PYTHON_VERSION))),-$(PYTHON_VERSION))
# Containers run as root, which Jupyter wants to be told.
ROOT_FLAG := $(if $(filter 0,$(shell id -u)),--allow-root)
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

# Compiled modules halve the start of every kernel; another active environment must not leak in.
unexport PYTHONDONTWRITEBYTECODE VIRTUAL_ENV CONDA_PREFIX PYTHONPATH

.PHONY: lab test soak render lock lint bench doctor site clean setup browser

lab: setup
	$(RUN) -m jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks \
		--LabApp.workspaces_dir=.venv/lab-workspaces $(ROOT_FLAG) $(LAB_FLAGS)

# CI always looks at the lessons in a browser, elsewhere `make test` does so where there is one.
test: setup $(if $(CI),browser)
	$(RUN) tests/offline.py $(RUN) -m pytest

soak: setup $(if $(CI),browser)
	$(RUN) tests/offline.py $(RUN) -m pytest -m soak

render: setup
	$(RUN) tools/render.py
	$(RUN) -m ruff format -q notebooks solutions

lint: setup
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check

doctor: setup
	@$(RUN) -m workshop.doctor

bench: setup
	$(RUN) -m benchmarks

# fresh each time, since Sphinx does not know that a lesson's page holds the answers too
site: setup
	$(RUN) -m sphinx -q -W --keep-going -n -E -c docs -d build/doctrees . build/site
	@echo "The site begins at build/site/index.html"

setup: $(ENVIRONMENT)
	$(RUN) -m workshop.sample

# For Debian and Ubuntu; the machines of GitHub come with Chrome and its driver.
browser:
	@if ! command -v chromedriver && [ -z "$$CHROMEWEBDRIVER" ]; then \
		$(SUDO) apt-get -qq update && \
		$(SUDO) apt-get -qq install --yes --no-install-recommends chromium chromium-driver fonts-dejavu-core >/dev/null; \
	fi

$(ENVIRONMENT): requirements.lock pyproject.toml | $(OWN_UV)
	@echo "Installing the packages into .venv: about 1.8 GB, a minute or two"
	"$(UV)" venv --quiet --clear --python "$(PYTHON_VERSION)" .venv
	"$(UV)" pip sync --quiet --python $(RUN) --require-hashes requirements.lock
	"$(UV)" pip install --quiet --python $(RUN) --no-deps --editable .
	$(RUN) -m jupyter labextension disable --level=sys_prefix @jupyterlab/apputils-extension:announcements >/dev/null 2>&1
	touch $@

.uv/bin/uv:
	python3 -m pip install --quiet --target .uv uv

lock: | $(OWN_UV)
	"$(UV)" run --no-project --python "$(PYTHON_VERSION)" tools/lock.py

clean:
	rm -rf .venv .uv build .pytest_cache .ruff_cache notebooks/.ipynb_checkpoints solutions/.ipynb_checkpoints
