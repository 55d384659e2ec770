# The targets of this project; `make help` lists them.
SHELL := /bin/bash
export CARGO_TERM_COLOR ?= auto
# Most tests wait rather than compute, but more than four at once slow each other on 2 cores.
export RUST_TEST_THREADS ?= 4
export RUSTDOCFLAGS ?= -D warnings

.PHONY: help demo check test test-static test-unit test-local test-packaging test-e2e test-verification test-kubernetes-versions bench soak deny fuzz generate docs image
help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 20

demo: ## Run imports without a cluster or an AWS account (KEEP=1 keeps it running).
	@KEEP=$(KEEP) hack/demo

check: ## Quick: words, links, formatting, lints and the tests that need no control plane.
	hack/needs cargo python3
	hack/words
	hack/versions
	hack/links
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test -p personalize-operator -p bench --lib --bin bench --test contracts --test generated

test: test-static test-unit test-local test-packaging test-e2e test-verification ## Everything.

test-static: ## Words, links, formatting, lints, documentation of the code, licences of the dependencies.
	hack/needs cargo go cc python3
	hack/words
	hack/versions
	hack/links
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo check --lib --no-default-features
	cargo doc --workspace --no-deps
	hack/deny

test-unit: ## The operator's unit tests, doc-tests, wire contracts, generated files, and limits of counts, data sets for the check.
	cargo test -p personalize-operator -p bench --lib --bins --test contracts --test generated --test check --test corpus
	cargo test --doc

test-local: ## The test programs themselves: the control plane, and the stand-in service with boto3 and the AWS CLI.
	cargo test -p control-plane -p personalize-local

test-packaging: ## The chart, manifests, alerts and GitOps recipes.
	cargo build --workspace --bins
	cargo test --test packaging

test-e2e: ## The operator on a real API server and the stand-in service: scenarios, faults, crashes, security, the demo.
	cargo build --workspace --bins
	cargo test --test e2e --test demo

test-verification: ## The model checker, and the fuzz targets on random input.
	cd tests/verification && cargo fmt --all --check && cargo clippy --all-targets -- -D warnings && cargo test

test-kubernetes-versions: ## Admission, policies, lives of resources and the chart on older versions of Kubernetes (VERSIONS="1.31 1.33").
	cargo build --workspace --bins
	set -e; for version in $(or $(VERSIONS),1.31 1.33); do \
		export KUBERNETES_VERSION=$$version; \
		cargo test --test e2e -- scenarios faults::crd faults::deletion faults::input faults::accounts faults::kubernetes faults::order faults::permissions faults::status faults::webhook security::permissions; \
		cargo test --test packaging -- chart::install chart::tenancy chart::render::api_server; \
	done

bench: ## What the operator costs: tables, target/bench/*.json, and the plots of docs/performance.md.
	cargo build --workspace --bins
	cargo test --test e2e -- --nocapture cost::
	cargo run --quiet -p bench

soak: ## A random workload with faults and kills for MINUTES=10, then a check of all invariants; SOAK_SEED= repeats one.
	cargo build --workspace --bins
	SOAK_MINUTES=$(or $(MINUTES),10) cargo test --test e2e -- --exact --nocapture soak::random_workload_with_faults_violates_no_invariant

deny: ## Licences, bans and sources of the dependencies; advisories if their database can be reached.
	hack/deny

fuzz: ## The fuzz targets guided by coverage, for MINUTES=60 in all (needs cargo-bolero).
	@MINUTES=$(MINUTES) hack/fuzz

generate: ## Everything that is generated: CRDs, tables in docs/, the Argo CD snippet, the chart's README and snapshots.
	cargo run --quiet -- crd > crds/datasetimportjobs.yaml
	cp crds/datasetimportjobs.yaml charts/personalize-operator/files/
	cp crds/datasetimportjobs.yaml config/crd/
	GENERATE=1 cargo test --quiet --test generated
	GENERATE=1 cargo test --quiet --test e2e faults::catalog
# Twice, because one generated file may depend on another.
	GENERATE=1 cargo test --quiet --test packaging -- snapshots readme kustomize_base argocd_cm_snippet_contains
	GENERATE=1 cargo test --quiet --test packaging -- snapshots readme kustomize_base argocd_cm_snippet_contains

docs: ## The documentation site in target/book.
	hack/docs

image: ## The container image, without a container engine: target/image/ (OCI layout) and target/image.tar.
	hack/image
