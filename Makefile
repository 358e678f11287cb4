.DEFAULT_GOAL := help
BIN := .venv/bin

.PHONY: help
help: ## Say what can be made (this text)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: up
up: .venv/installed-run ## Install, then run a fleet with the tenant "demo"; Ctrl-C stops it, the data stay
	@exec $(BIN)/mlfleet up --demo $(ARGS)

.PHONY: install
install: .venv/installed-run ## Install what running needs into ./.venv

.PHONY: install-dev
install-dev: .venv/installed-dev ## Install what tests and checks need, too

.venv/installed-run: requirements.lock requirements-uv.lock pyproject.toml
	@scripts/install

.venv/installed-dev: requirements-dev.lock requirements-uv.lock pyproject.toml
	@scripts/install dev
	@touch .venv/installed-run

.PHONY: test
test: ## Check, then run every test (installs what they need); ARGS="-k wake" picks some
	@scripts/test $(ARGS)

.PHONY: test-cluster
test-cluster: .venv/installed-dev ## Test the fleet on the Kubernetes with Knative that KUBECONFIG names
	@scripts/test-cluster $(ARGS)

.PHONY: bench-cluster
bench-cluster: .venv/installed-dev ## Measure a fleet and stock servers on Kubernetes, in 10 minutes (KUBECONFIG)
	@$(BIN)/python scripts/bench-cluster $(ARGS)

.PHONY: render
render: .venv/installed-dev ## Render the Kubernetes overlays into tests/golden
	@scripts/render

.PHONY: test-long
test-long: .venv/installed-dev ## Compare a tenant with stock MLflow by thousands of random calls, in about 10 minutes
	@MLFLEET_DIFFERENTIAL=long $(BIN)/pytest tests/differential $(ARGS)

.PHONY: plant-faults
plant-faults: .venv/installed-dev ## Break the hot route in twenty-two ways and see the tests catch each
	@$(BIN)/python scripts/plant_faults $(ARGS)

.PHONY: check
check: .venv/installed-dev ## Format, lint, strict types, import layers
	@scripts/check

.PHONY: format
format: .venv/installed-dev ## Rewrite the sources in the project's format
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

.PHONY: bench
bench: .venv/installed-dev ## Measure against a stock MLflow server and write the table
	@scripts/bench $(ARGS)

.PHONY: bench-quick
bench-quick: .venv/installed-dev ## The same with fewer turns and tenants, in about 4 minutes
	@scripts/bench --quick $(ARGS)

.PHONY: load
load: .venv/installed-dev ## Put 200 users on the running fleet for 2 minutes, check every acknowledged row, write report.html
	@$(BIN)/mlfleet load run -u 200 -r 50 -t 2m --tenants 40 --think 5 $(ARGS)

.PHONY: compare
compare: .venv/installed-dev ## The same users at stock MLflow and at the running fleet, in turns; writes the table
	@$(BIN)/mlfleet load compare $(ARGS)

.PHONY: load-figures
load-figures: .venv/installed-dev ## Measure the fleet under thousands of users and write the table, in two hours
	@scripts/load-figures $(ARGS)

.PHONY: lock
lock: .venv/installed-dev ## Write the locks anew; ARGS=--upgrade takes newer versions
	@scripts/lock $(ARGS)

.PHONY: clean
clean: ## Remove what was installed and built, but never data
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .screenshots src/*.egg-info
