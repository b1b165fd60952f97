# One command each: `make book` builds the course, `make test` checks it.
# Everything is installed into .venv here; nothing else on the machine is touched, but for the
# browser that `make browser` needs: where there is none, and it may, it installs Debian's.

# The first of these that runs and fits; python3 itself, if none does, to say why.
FITS = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(or $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done),python3)
RUN = .venv/bin/python -m

.PHONY: help book test check browser new-notebook execute lint format lock repository colab clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

# Made again whenever the lock or the package's declaration changes.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) tools/install.py

book: .venv/installed  ## Build the book into _build/html
	@$(RUN) tools.book

test: .venv/installed  ## Test the package and re-run every notebook against its stored outputs
	@$(RUN) tools.check

check: .venv/installed  ## Test what changed since a commit, for daily work: SINCE=HEAD
	@$(RUN) tools.check --since $(or $(SINCE),HEAD)

browser: .venv/installed  ## Look at every page of the built book in a browser
	@$(RUN) tools.browser

new-notebook: .venv/installed  ## Begin a page: NB=chapters/maml/my-page.ipynb TITLE="My page"
	@$(RUN) tools.new_notebook "$(NB)" "$(TITLE)"

execute: .venv/installed  ## Run notebooks and store their outputs: all, or NB="path ..."
	@$(RUN) tools.execute $(NB)

lint: .venv/installed  ## Check style and spelling
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@.venv/bin/codespell
	@echo "Style and spelling are fine."

format: .venv/installed  ## Format the code, notebooks included
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

lock: .venv/installed  ## Lock what pyproject.toml declares; the newest versions: OPTIONS=--upgrade
	@$(RUN) tools.lock $(OPTIONS)

repository: .venv/installed  ## Set the repository's address everywhere: URL=https://github.com/owner/name
	@$(RUN) tools.repository "$(URL)"

colab:  ## Run all notebooks with Colab's versions of TensorFlow, Keras, NumPy and matplotlib
	@$(PYTHON) tools/colab.py

clean:  ## Remove what was built and installed
	rm -rf _build .venv .venv-colab build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
