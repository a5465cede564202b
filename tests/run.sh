#!/usr/bin/env bash
# Everything CI checks: formatting, lints, all tests, docs. Brings what is missing first.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/services.sh
. tests/services.sh
need_rust
need_lints
need_services
cargo fmt --check
# Without features, as it is installed, it only has to compile; all else is done with all of them.
cargo check --quiet --locked
cargo clippy --quiet --all-targets --all-features --locked -- -D warnings
# Tests mostly wait for services: one more at a time than there are cores.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$(($(nproc) + 1))}"
RUST_BACKTRACE=0 cargo test --all-features --locked "$@"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --document-private-items --all-features --locked
# The tests hold the same rules without it; this reads licence texts too.
if command -v cargo-deny >/dev/null; then cargo deny --offline check licenses bans sources; fi
