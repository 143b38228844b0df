# A static binary and nothing else: no shell, no libraries, no root.
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
ARG SEALGATE_REVISION=unknown
ENV SEALGATE_REVISION=$SEALGATE_REVISION
# The target is named so that build scripts and macros stay dynamic; only the product is static.
RUN target="$(uname -m)-unknown-linux-gnu" \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --bin sealgate --target "$target" \
    && install -D "target/$target/release/sealgate" /image/usr/bin/sealgate \
    && install -D -m 0644 config/container.toml /image/etc/sealgate/sealgate.toml \
    && install -D -m 0644 config/policy.json /image/etc/sealgate/policy.json \
    && install -d -m 0700 -o 65532 -g 65532 /image/var/lib/sealgate

FROM scratch
COPY --from=build /image /
USER 65532:65532
VOLUME /var/lib/sealgate
EXPOSE 5000 5001
ENTRYPOINT ["/usr/bin/sealgate"]
CMD ["serve", "--config", "/etc/sealgate/sealgate.toml"]
