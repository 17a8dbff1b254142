# Everything runs in .venv, which the first target that needs it makes. Written for GNU make 3.81
# (macOS) and for paths with spaces: all paths are relative. Windows: see README.md.

STAMP := .venv/.installed
RUN := .venv/bin/python

help:
	@echo "make book       build the book into _build/html (10 seconds; the first time some minutes)"
	@echo "make serve      serve the built book on this machine"
	@echo "make test       ruff, mypy, the tests, and every notebook run anew (about 15 minutes)"
	@echo "make lint       ruff, mypy and make audit alone"
	@echo "make audit      ask PyPI whether a pinned package has a known vulnerability"
	@echo "make notebooks  run the notebooks whose code or package has changed"
	@echo "make clean      remove what make made: .venv, _build and caches"
	@echo "The first of them installs everything into .venv (PYTHON=... chooses the Python, >= 3.11)."

# The stamp holds the folder's path: a folder that was moved is installed anew, and so is one whose
# Python has gone.
ifneq ($(shell $(RUN) -c "" 2>/dev/null && cat $(STAMP) 2>/dev/null),$(shell pwd -P))
.PHONY: $(STAMP)
endif

$(STAMP): pyproject.toml constraints.txt
	@if [ -n "$$PYTHON" ]; then set -- "$$PYTHON"; \
	else set -- python3.13 python3.12 python3.11 python3; fi; \
	works() { "$$1" -c "import sys; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1; }; \
	for p; do works "$$p" && "$$p" -c "import venv, ensurepip" 2>/dev/null && break; p=; done; \
	if [ -z "$$p" ]; then \
	  for q; do works "$$q" && break; q=; done; \
	  if [ -n "$$q" ]; then \
	    echo "minidiff: $$q cannot make virtual environments (venv or ensurepip is missing)."; \
	    echo "  Debian, Ubuntu: sudo apt install python3-venv"; \
	  else \
	    echo "minidiff: needs Python 3.11 or newer; tried: $$*"; \
	    echo "  Debian 12, Ubuntu 24.04 or newer: sudo apt install python3 python3-venv"; \
	    echo "  Fedora: sudo dnf install python3       macOS: brew install python"; \
	  fi; \
	  echo "  Another Python: make PYTHON=/path/to/python3"; exit 1; \
	fi >&2; \
	echo "Installing into .venv with $$p: some 240 packages, 3 to 10 minutes, 2.8 GB on disk."; \
	echo "To download: about 540 MB on macOS and 680 MB on Linux with a CPU build of torch; the"; \
	echo "build that PyPI has for Linux carries CUDA: 3.1 GB, and more on disk (pytorch.org tells"; \
	echo "which PIP_EXTRA_INDEX_URL gives the CPU build). What pip has cached is not fetched again."; \
	echo "Afterwards make test takes about 15 minutes on 2 cores, make book 10 seconds."; \
	clear=; $(RUN) -c "" 2>/dev/null || clear=--clear; "$$p" -m venv $$clear .venv
	@$(RUN) -m pip install -q setuptools wheel -c constraints.txt
	$(RUN) -m pip install --no-build-isolation -e ".[notebooks,book,play,test,data,trackers]" \
	  -c constraints.txt
	@pwd -P > $(STAMP)

book: $(STAMP)
	@echo "Building the book: 10 seconds. The first time some minutes more, for the page that draws,"
	@echo "and 35 MB to download, from npm's registry."
	$(RUN) .venv/bin/jupyter-book build . -W -n --keep-going
	$(RUN) tools/play/build_play.py
	@echo "The book's first page: _build/html/index.html"

serve: $(STAMP)
	$(RUN) tools/play/serve.py

test: lint
	@echo "Testing: about 15 minutes on 2 cores; the page that draws is built for it, as in make book."
	OMP_NUM_THREADS=1 PYTHONWARNDEFAULTENCODING=1 $(RUN) -m pytest -n 2 --dist loadfile
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --nbval notebooks \
	  --nbval-cell-timeout 600 --timeout 660

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) tools/audit.py

audit: $(STAMP)
	$(RUN) tools/audit.py

notebooks: $(STAMP)
	$(RUN) tools/book/notebooks.py

clean:
	rm -rf _build build dist minidiff.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find minidiff tests tools benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	@if [ -e $(STAMP) ]; then echo "rm -rf .venv"; rm -rf .venv; fi

.PHONY: help book serve test lint audit notebooks clean
