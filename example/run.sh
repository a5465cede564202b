#!/usr/bin/env bash
# The demo: deploys the monorepo beside this file to a sandbox, with the real Docker Engine. Brings what is missing first.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/services.sh
. tests/services.sh
need_rust
need_engine
exec cargo run --quiet --locked -- demo "$@"
