# Everything a developer needs; `make help` lists it.
SHELL := /bin/bash
export CARGO_TERM_COLOR ?= auto
# Most tests wait for a condition rather than compute; more at once starve each other on 2 cores.
export RUST_TEST_THREADS ?= 4

.PHONY: help demo test check soak deny fuzz generate image
help: ## This list.
	@grep -hE '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

demo: ## The main job, seen, without a cluster or an AWS account (KEEP=1 stays up).
	@KEEP=$(KEEP) hack/demo

test: ## Everything: formatting, lints, and every test on the real control plane.
	hack/needs cargo go cc python3
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	hack/deny
	cargo build --workspace --bins
	cargo test --workspace
	cd tests/apart && cargo fmt --all --check && cargo clippy --all-targets -- -D warnings && cargo test

check: ## The quick lane: formatting, lints and the tests that need no control plane.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --lib --test generated

deny: ## Licences, bans and sources of the dependencies; advisories where their database can be reached.
	hack/deny

soak: ## A random workload with faults and kills for MINUTES=10, then a check of all invariants; SOAK_SEED= repeats one.
	cargo build --workspace --bins
	SOAK_MINUTES=$(or $(MINUTES),10) cargo test --test e2e -- --exact --nocapture soak::random_workload_with_faults_violates_no_invariant

fuzz: ## The fuzz targets guided by coverage, for MINUTES=60 in all (needs cargo-bolero).
	@MINUTES=$(MINUTES) hack/fuzz

generate: ## What is made from something else: the CRD, tables in docs/, the snippet for Argo CD, the chart's README and snapshots.
	cargo run --quiet -- crd > crds/datasetimportjobs.yaml
	cp crds/datasetimportjobs.yaml charts/personalize-operator/files/
	cp crds/datasetimportjobs.yaml config/crd/
	GENERATE=1 cargo test --quiet --test generated
	GENERATE=1 cargo test --quiet --test e2e faults::catalog
	GENERATE=1 cargo test --quiet --test chart -- each_case the_readme the_base
	GENERATE=1 cargo test --quiet --test gitops the_snippet_for_argocd_cm

image: ## The container image, without a container engine: target/image/ (OCI layout) and target/image.tar.
	hack/image
