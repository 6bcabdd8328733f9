# Two commands do everything: `make demo` and `make test`.

export PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SANDBOX := .sandbox
NPM := npm --silent

.NOTPARALLEL:
.PHONY: help setup venv venv-dev sandbox demo test test-long fresh release soak check format contracts contracts-fresh invariants mutants syscalls gas image clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

setup: venv sandbox  ## Make the node's environment (.venv) and the sandbox's (.sandbox), or mend them

venv:
	@sh .ci/system-packages node
	@sh .ci/venv daemon,devchain

venv-dev:
	@sh .ci/system-packages node
	@sh .ci/venv dev

sandbox: venv
	@$(BIN)/python -m pandacea environment build --directory $(SANDBOX)

demo: setup  ## From an approved on-chain lease to trained weights; ARGS="--csv FILE --features a,b --label y" for your table
	@$(BIN)/python examples/demo.py $(ARGS)

test: venv-dev sandbox  ## Every check and every test, with real parts
	@sh .ci/system-packages test
	@$(MAKE) --no-print-directory check
	@sh .ci/test

test-long: venv-dev sandbox invariants  ## The same with the randomised suites at full size, and a second tool's invariants
	@sh .ci/system-packages test
	@PANDACEA_TEST_SCALE=10 sh .ci/test

fresh: venv-dev  ## make demo on bare machines made here, Debian 12 and 13, as root and as a plain user; ARGS="--rows noble:visitor"
	@$(BIN)/python tests/fresh/bare_machines.py $(ARGS)

release: venv-dev  ## Build and check the sdist and the wheel, and print what a maintainer runs to publish them
	@sh .ci/release dist

soak: venv-dev sandbox  ## Ten minutes of random leases, reorganisations, RPC faults and kill -9; ARGS="--minutes 1 --seed 7", or --lies
	@sh .ci/system-packages node-js
	@cd tests/npm && $(NPM) install --no-fund --no-audit
	@PANDACEA_TEST_ENVIRONMENT="$(CURDIR)/$(SANDBOX)" $(BIN)/python benchmarks/soak.py $(ARGS)

check: venv-dev  ## ruff, mypy (strict), import rules, the compiled contract's freshness
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=daemon $(BIN)/lint-imports --no-logo
	@$(MAKE) --no-print-directory contracts-fresh

format: venv-dev  ## Format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

contracts: contracts/node_modules  ## Compile the contracts with pinned solc (WASM); changes no tracked file
	@cd contracts && node compile.js

contracts-fresh: contracts/node_modules
	@cd contracts && node compile.js --check

contracts/node_modules: contracts/package-lock.json
	@sh .ci/system-packages node-js
	@cd contracts && $(NPM) ci --no-fund --no-audit
	@touch $@

invariants: contracts/node_modules  ## The contract against an oracle of its own, by forge; FOUNDRY_INVARIANT_RUNS=1000 for more than 200 histories
	@cd contracts/invariants && $(NPM) ci --no-fund --no-audit && node_modules/.bin/forge test

mutants: venv-dev contracts/node_modules  ## Change the contract in each place and see whether the tests notice; ARGS="--only splitDispute --jobs 4"
	@$(BIN)/python contracts/mutants.py $(ARGS)

syscalls: venv-dev  ## Generate the seccomp filter's system-call numbers from the kernel's headers
	@$(BIN)/python tools/syscall_table.py

gas: venv-dev  ## The gas table, beside the first version's storage shape
	@$(BIN)/python benchmarks/gas.py

image: venv-dev sandbox  ## Build the sandbox image for Docker (starts an engine and makes a base image where none answers)
	@$(BIN)/python tests/engine/prepare.py all

clean:  ## Remove what was built here
	rm -rf $(VENV) $(SANDBOX) $(SANDBOX).wheels dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
