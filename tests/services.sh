#!/usr/bin/env bash
# Brings what the demo and the tests need on a Debian machine: a Docker Engine that answers, and, for the tests, a registry,
# htpasswd, a browser and an ECR API. Installs only what is missing, and asks the package index only then; starts an engine only when none
# answers. Source it, then call `need_rust` and `need_engine` or `need_services`.

# What Debian keeps out of the path of ordinary users.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    say "this needs root: $*"
    return 1
  fi
}

updated=
update() {
  [ -z "$updated" ] || return 0
  as_root apt-get update -qq >&2
  updated=yes
}

install() {
  if ! command -v apt-get >/dev/null; then
    say "please install: $*"
    return 1
  fi
  update
  say "installing $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# have PROGRAM PACKAGE…: the packages are installed when the program is not there.
have() {
  local program=$1
  shift
  command -v "$program" >/dev/null && return
  install "$@"
  hash -r
  command -v "$program" >/dev/null || { say "$program is missing although $* is installed"; return 1; }
}

engine_answers() { curl -fsS --max-time 5 --unix-socket /var/run/docker.sock http://engine/_ping >/dev/null 2>&1; }

# An engine that root can reach and we cannot is not missing: starting a second one would not help.
engine_is_closed() { [ -S /var/run/docker.sock ] && [ ! -w /var/run/docker.sock ]; }

# Containers need the cgroup hierarchy; a bare container or chroot comes without it.
need_cgroups() {
  [ ! -e /sys/fs/cgroup/cgroup.controllers ] || return 0
  [ -z "$(ls -A /sys/fs/cgroup 2>/dev/null)" ] || return 0
  say "mounting /sys/fs/cgroup"
  as_root mkdir -p /sys/fs/cgroup
  as_root mount -t cgroup2 cgroup2 /sys/fs/cgroup || say "it cannot be mounted; the engine may not start"
}

# Rust is there by the reader's own doing.
need_rust() {
  command -v cargo >/dev/null && return
  export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  command -v cargo >/dev/null || { say "cargo is missing: https://rustup.rs"; return 1; }
}

# What the smallest profile of Rust leaves out.
need_lints() {
  if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then return; fi
  say "adding rustfmt and clippy"
  if command -v rustup >/dev/null; then
    rustup component add rustfmt clippy >&2
  else
    install rustfmt rust-clippy
  fi
}

# The base images hold busybox and nothing else, so it has to be the one that needs no libraries. Debian's usual one does.
need_busybox() {
  local busybox
  if busybox=$(command -v busybox) && ! ldd "$busybox" 2>/dev/null | grep -q libc; then return; fi
  install busybox-static
}

need_engine() {
  have git git
  # rustc links with cc, and libgit2 is compiled: both need the headers too.
  have cc gcc libc6-dev
  have curl curl
  # What cargo and pip check servers with.
  [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -n "${SSL_CERT_FILE:-}" ] || install ca-certificates
  need_busybox
  if [ -n "${DOCKER_HOST:-}" ] || engine_answers; then return; fi
  if engine_is_closed; then
    say "the Docker Engine is there, but $(id -un) may not use it: sudo usermod -aG docker $(id -un), then log in again"
    return 1
  fi
  have dockerd docker.io iptables
  have iptables iptables
  # Installing the package may have started it, where something starts services.
  for _ in 1 2 3 4; do
    engine_answers && return
    sleep 0.5
  done
  need_cgroups
  say "starting dockerd"
  local log=${TMPDIR:-/tmp}/offbuild-dockerd.log
  as_root sh -c "setsid dockerd >'$log' 2>&1 </dev/null &"
  for _ in $(seq 120); do
    engine_answers && return
    sleep 0.5
  done
  say "dockerd did not come up; the end of $log:"
  as_root tail -n 20 "$log" >&2
  return 1
}

# moto, in a virtual environment of its own. A directory without the program is what a failed attempt left.
need_moto() {
  local venv=${CARGO_TARGET_DIR:-target}/moto-venv
  if [ -z "${OFFBUILD_TEST_MOTO:-}" ]; then
    if [ ! -x "$venv/bin/moto_server" ] || ! "$venv/bin/python" -c 'import moto' 2>/dev/null; then
      # Debian's python3 has venv but not ensurepip, without which an environment has no pip.
      python3 -c 'import ensurepip, venv' 2>/dev/null || install python3 python3-venv
      say "installing moto into $venv"
      rm -rf "$venv"
      python3 -m venv "$venv"
      "$venv/bin/python" -m pip install -q --disable-pip-version-check 'moto[server]==5.2.5'
    fi
    OFFBUILD_TEST_MOTO=$(realpath "$venv/bin/moto_server")
  fi
  export OFFBUILD_TEST_MOTO
}

# The client: with the engine in Debian 12, in a package of its own from 13 on.
need_client() {
  command -v docker >/dev/null && return
  update
  if apt-cache show docker-cli >/dev/null 2>&1; then install docker-cli; else install docker.io; fi
}

need_services() {
  need_engine
  need_client
  have openssl openssl
  have ssh-agent openssh-client
  # Debian starts the registry as a service where there is systemd; the tests start their own on free ports.
  have docker-registry docker-registry
  have htpasswd apache2-utils
  # Opens the run's page.
  have chromium-headless-shell chromium-headless-shell
  need_moto
}
