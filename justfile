# The list of commands; the pipeline calls the same ones. `just --list` shows them.

# What is asked of every change
check: fmt lint test doc deny

# Formatting
fmt:
    cargo fmt --check

# Lints, of tests and examples too
lint:
    cargo clippy --locked --all-targets -- -D warnings

# All tests that need no daemon
test:
    cargo test --locked

# Integration tests whose name contains NAME
it NAME:
    cargo test --locked --test it {{NAME}}

# The real mirror against random clients, faults and clocks, compared with its model: so many seeds, from FIRST on
simulate SEEDS FIRST="0":
    SEALGATE_SEEDS={{SEEDS}} SEALGATE_FIRST_SEED={{FIRST}} cargo test --release --locked --test it -- --nocapture simulation

# `kill -9` at so many random moments of mixed load
kill KILLS="200":
    SEALGATE_KILLS={{KILLS}} cargo test --release --locked --test it -- --nocapture f_01_a_kill

# The real program at full load with faults for so many minutes: memory, descriptors and staging files stay flat
soak MINUTES="10":
    SEALGATE_SOAK_MINUTES={{MINUTES}} cargo test --release --locked --test it -- --nocapture f_10_

# Accept what tests print: snapshots and generated pages
bless:
    SEALGATE_BLESS=1 INSTA_UPDATE=always cargo test --locked

# The documentation of the code
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

# Licences, sources and doubled versions of dependencies
deny:
    cargo deny --locked check bans licenses sources

# The main job, without a network
demo:
    cargo run --release --locked --example demo

# Real dockerd, containerd, podman and skopeo against the mirror (Debian 12, root)
clients:
    tests/clients/run

# Signatures by the real cosign, where it is at hand.
interop:
    tests/interop/run

# A binary that needs no library of the system, for the image
static:
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target x86_64-unknown-linux-gnu

# Mirror, Prometheus and Grafana on this machine
up:
    docker compose up --build
