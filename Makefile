# Each target is hack/<name>, and each sets up what it needs: Python 3.11 is enough to begin with.
.PHONY: help demo test check fmt bench

help: ## Show this.
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 10

demo: ## See it work, without AMD hardware and without a cluster.
	@hack/demo

test: ## Run every test that can run here; the table at the end says which could not.
	@hack/test

check: ## Lint, types, architecture, and that generated files are current.
	@hack/check

fmt: ## Format, and regenerate what is generated.
	@hack/fmt

bench: ## Measure what matters.
	@hack/bench
