# Everything a developer needs; `make help` lists it.
SHELL := /bin/bash
export CARGO_TERM_COLOR ?= auto

.PHONY: help demo test check generate
help: ## This list.
	@grep -hE '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

demo: ## The main job, seen, without a cluster or an AWS account (KEEP=1 stays up).
	@KEEP=$(KEEP) hack/demo

test: ## Everything: formatting, lints, and every test on the real control plane.
	hack/needs cargo go cc
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo build --workspace --bins
	cargo test --workspace

check: ## The quick lane: formatting, lints and the tests that need no control plane.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --lib

generate: ## What is made from the types: the CRD and the reference in docs/.
	cargo run --quiet -- crd > crds/datasetimportjobs.yaml
	GENERATE=1 cargo test --quiet --test generated
