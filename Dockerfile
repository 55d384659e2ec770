# syntax=docker/dockerfile:1
# The image holds the operator, statically linked, and the public certificate authorities: nothing else.
# `hack/image` makes the same one without a container engine.
#
# The base is pinned by its full version. Whoever mirrors it can pin the digest, too:
#   docker build --build-arg RUST_IMAGE=rust:1.95.0-slim-bookworm@sha256:… .
ARG RUST_IMAGE=rust:1.95.0-slim-bookworm

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
# The caches keep what dependencies compile to from one build to the next. --target keeps build scripts from being static.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    target=$(rustc -vV | sed -n 's/^host: //p') \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$target" --bin personalize-operator \
    && cp "target/$target/release/personalize-operator" /

FROM scratch
COPY --from=build /personalize-operator /personalize-operator
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/personalize-operator"]
CMD ["run"]
