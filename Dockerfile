# The service as a container: one binary, no shell, no root, nothing to write but /data.
#
#   docker build -t launchdarkly-connector .
#
# Both images are Debian 12, so the binary finds the C library it was linked against.

FROM rust:1.95-bookworm AS build
WORKDIR /src

# `--build-arg FEATURES=` leaves the sandbox out: the commands `sandbox` and `demo`, `serve --sandbox`.
ARG FEATURES=default

# Dependencies first, around sources that are empty: this layer is built anew only when they
# change. A layer travels with the image cache to any builder; a cache mount would not leave the
# machine that filled it.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && touch src/lib.rs \
    && echo 'fn main() {}' > build.rs \
    && cp build.rs src/main.rs \
    && cargo build --locked --release --no-default-features --features "$FEATURES"

COPY build.rs ./
COPY proto proto/
COPY migrations migrations/
COPY samples samples/
COPY src src/
# Copied files keep the time of their last change, which may be before that of the empty ones;
# cargo goes by time. The empty directory becomes the volume, for want of a shell below.
RUN touch build.rs src/lib.rs src/main.rs \
    && cargo build --locked --release --no-default-features --features "$FEATURES" \
    && mkdir data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/launchdarkly-connector /usr/local/bin/
COPY --from=build --chown=65532:65532 /src/data /data

# By number, so that an orchestrator can tell that it is not root.
USER 65532:65532
VOLUME /data

# Callers are not identified yet, so `serve` refuses to listen on this address unless it is told
# that something in front lets only the right ones in: set CONNECTOR_INSECURE=true to say so.
ENV CONNECTOR_LISTEN=0.0.0.0:50051 \
    CONNECTOR_STORE=sqlite:/data/connector.db \
    CONNECTOR_KEYS_FILE=/run/secrets/connector.keys
EXPOSE 50051

# Asks where CONNECTOR_LISTEN says.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s \
    CMD ["/usr/local/bin/launchdarkly-connector", "health"]
ENTRYPOINT ["/usr/local/bin/launchdarkly-connector"]
CMD ["serve"]
