#!/usr/bin/env bash
# Brings what the demo and the tests need on a Debian machine: a Docker Engine that answers, and, for the tests, a registry,
# htpasswd and an ECR API. Installs only what is missing; starts an engine only when none answers. Source it, then call
# `need_engine` or `need_services`.

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
    say "this needs root: $*"; return 1
  fi
}

updated=
install() {
  [ -n "$updated" ] || { as_root apt-get update -qq >&2; updated=yes; }
  say "installing $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# have PROGRAM PACKAGE: the package is installed when the program is not there.
have() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] || install "$2"; }

engine_answers() { curl -fsS --max-time 5 --unix-socket "${1:-/var/run/docker.sock}" http://engine/_ping >/dev/null 2>&1; }

need_engine() {
  have cc gcc
  have curl curl
  have openssl openssl
  have busybox busybox-static
  if [ -n "${DOCKER_HOST:-}" ] || engine_answers; then return; fi
  have dockerd docker.io
  have iptables iptables
  engine_answers && return
  say "starting dockerd"
  log=${TMPDIR:-/tmp}/offbuild-dockerd.log
  as_root sh -c "setsid dockerd >'$log' 2>&1 </dev/null &"
  for _ in $(seq 120); do engine_answers && return; sleep 0.5; done
  say "dockerd did not come up; the end of $log:"
  tail -n 20 "$log" >&2
  return 1
}

need_services() {
  need_engine
  have git git
  have docker-registry docker-registry
  have htpasswd apache2-utils
  # Debian starts the registry as a service where there is systemd; the tests start their own on free ports.
  moto=${CARGO_TARGET_DIR:-target}/moto-venv
  if [ ! -x "$moto/bin/moto_server" ]; then
    say "installing moto into $moto"
    rm -rf "$moto"
    python3 -m venv "$moto" 2>/dev/null || { install python3 python3-venv; rm -rf "$moto"; python3 -m venv "$moto"; }
    "$moto/bin/pip" install -q --disable-pip-version-check 'moto[server]==5.2.5'
  fi
  OFFBUILD_TEST_MOTO=$(realpath "$moto/bin/moto_server")
  export OFFBUILD_TEST_MOTO
}
