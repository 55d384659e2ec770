# The image holds the operator, statically linked, and the public certificate authorities: nothing else.
# `hack/image` makes the same one without a container engine.
#
# The base is pinned by its full version. A digest is the registry's to tell: whoever mirrors the base can pin it, too:
#   docker build --build-arg RUST_IMAGE=rust:1.95.0-slim-bookworm@sha256:… .
ARG RUST_IMAGE=rust:1.95.0-slim-bookworm

FROM ${RUST_IMAGE} AS build
WORKDIR /src
ENV RUSTFLAGS="-C target-feature=+crt-static"
# The dependencies, in a layer of their own that is made anew only when a manifest changes. --target keeps build scripts
# from being static.
COPY Cargo.toml Cargo.lock ./
COPY tests/control-plane/Cargo.toml tests/control-plane/
COPY tests/personalize-local/Cargo.toml tests/personalize-local/
RUN for crate in . tests/control-plane tests/personalize-local; do \
        mkdir -p "$crate/src" && echo '//! Stands in for the sources.' > "$crate/src/lib.rs"; \
    done \
    && printf '//! Stands in.\nfn main() {}\n' > src/main.rs \
    && rustc -vV | sed -n 's/^host: //p' > /host \
    && cargo build --release --locked --target "$(cat /host)" --bin personalize-operator
COPY . .
# COPY keeps the times of files, by which cargo would take what stood in for newer than the sources.
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked --target "$(cat /host)" --bin personalize-operator \
    && cp "target/$(cat /host)/release/personalize-operator" /

FROM scratch
COPY --from=build /personalize-operator /personalize-operator
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/personalize-operator"]
CMD ["run"]
