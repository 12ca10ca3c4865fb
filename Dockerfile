# The service's image: the one binary on a base without a shell, run by an unprivileged user.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
# Queries are checked against the descriptions in .sqlx, as there is no database here.
ENV SQLX_OFFLINE=true
COPY Cargo.toml Cargo.lock build.rs ./
COPY .sqlx .sqlx
# These are not built, but their manifests are part of the workspace.
COPY bench bench
COPY clients/rust clients/rust
COPY reference reference
COPY build build
COPY migrations migrations
COPY proto proto
COPY third_party third_party
COPY src src
# `tenantry --version` shows this commit. The image's build has no git.
ARG TENANTRY_COMMIT=
# Both caches survive between builds on one machine. As target is one of them, and not part of the
# image, the binary is copied out.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin tenantry \
    && cp target/release/tenantry /usr/local/bin/tenantry \
    && mkdir -m 0700 /keys

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /usr/local/bin/tenantry /usr/local/bin/tenantry
# A volume mounted here for the first time takes over the owner, and can be written to.
COPY --from=build --chown=65532:65532 /keys /keys
USER 65532:65532
# Without a certificate it asks for PLAINTEXT=all before it serves there.
ENV GRPC_ADDR=[::]:50051
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/tenantry", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/tenantry"]
CMD ["serve"]
