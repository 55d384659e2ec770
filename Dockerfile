# The image contains the statically linked operator and the public certificate authorities, nothing else.
# `hack/image` builds the same image without a container engine.
#
# The base image is pinned by its full version. To also pin a digest of your registry:
#   docker build --build-arg RUST_IMAGE=rust:1.95.0-slim-bookworm@sha256:… .
ARG RUST_IMAGE=rust:1.95.0-slim-bookworm

FROM ${RUST_IMAGE} AS build
WORKDIR /src
ENV RUSTFLAGS="-C target-feature=+crt-static"
# The dependencies have their own layer, which is rebuilt only when a manifest changes. With --target, RUSTFLAGS don't apply
# to build scripts, which can't be static.
COPY Cargo.toml Cargo.lock ./
COPY tests/bench/Cargo.toml tests/bench/
COPY tests/control-plane/Cargo.toml tests/control-plane/
COPY tests/personalize-local/Cargo.toml tests/personalize-local/
RUN for crate in . tests/bench tests/control-plane tests/personalize-local; do \
        mkdir -p "$crate/src" && echo '//! A placeholder.' > "$crate/src/lib.rs"; \
    done \
    && printf '//! A placeholder.\nfn main() {}\n' > src/main.rs \
    && rustc -vV | sed -n 's/^host: //p' > /host \
    && cargo build --release --locked --target "$(cat /host)" --bin personalize-operator
COPY . .
# COPY keeps the files' times, so cargo would consider the placeholders newer than the sources.
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
