# Forwards to run.py, which also works where there is no make.
PYTHON ?= python3
OPTIONS = $(if $(CORPUS),--corpus $(CORPUS)) $(if $(PROFILE),--profile $(PROFILE))

.PHONY: book test lab lint setup clean
book: ; $(PYTHON) run.py book $(OPTIONS)
test lab lint setup clean: ; $(PYTHON) run.py $@
