# make demo: the whole way on a small world that it draws itself. make test: lint, types, tests.
PYTHON ?= python3
BIN := .venv/bin
PATH := $(CURDIR)/$(BIN):$(PATH)
export PATH

.PHONY: install demo test test-long lint types clean

install: .venv/.installed

.venv/.installed: pyproject.toml CMakeLists.txt $(wildcard csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e ".[cpu,openvino,trt-rtx,train,serve,dev]"
	touch $@

demo: install
	rm -rf demo
	xmr init --sample demo
	cd demo && xmr train
	cd demo && xmr eval
	cd demo && xmr export
	cd demo && xmr index corpus/
	cd demo && xmr query --image query/dog.jpg --to sound
	cd demo && xmr query --text "a small red bell on a plain background" --to image,sound
	@echo
	@echo "To search it in a browser: cd demo && ../$(BIN)/xmr open"

# mypy does not follow the redirects of an editable install, so it is shown the package through two links
types: install
	mkdir -p build/typing/xmr
	ln -sfn ../../../engine build/typing/xmr/engine
	ln -sfn ../../../train build/typing/xmr/train
	mypy

lint: install
	ruff check .
	ruff format --check .

test: lint types
	pytest

# with the tests that take minutes
test-long: lint types
	pytest -m "long or not long"

clean:
	rm -rf .venv build demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
