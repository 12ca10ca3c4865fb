# The image of the service: the binary on a base without a shell, run by an unprivileged user.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
# The build has no database, so queries are checked against the descriptions in .sqlx.
ENV SQLX_OFFLINE=true
COPY Cargo.toml Cargo.lock build.rs ./
COPY .sqlx .sqlx
# These crates are not built, but their manifests are part of the workspace.
COPY bench bench
COPY chaos chaos
COPY clients/rust clients/rust
COPY reference reference
COPY build build
COPY migrations migrations
COPY proto proto
COPY third_party third_party
COPY src src
# `tenantry --version` shows this commit. The image's build has no git.
ARG TENANTRY_COMMIT=
# Both caches persist between builds on one machine. `target` is a cache and not part of the image,
# so the binary is copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin tenantry \
    && cp target/release/tenantry /usr/local/bin/tenantry \
    && mkdir -m 0700 /keys

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /usr/local/bin/tenantry /usr/local/bin/tenantry
# A new volume that is mounted here gets this owner, so the service can write to it.
COPY --from=build --chown=65532:65532 /keys /keys
USER 65532:65532
# Without a certificate the server requires PLAINTEXT=all to listen on this address.
ENV GRPC_ADDR=[::]:50051
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/tenantry", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/tenantry"]
CMD ["serve"]
