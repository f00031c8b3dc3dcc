#!/usr/bin/env bash
# Resolves pyproject.toml into requirements.lock and requirements-test.lock, anew from the newest versions that fit.
# torch and what only its CUDA build needs are left out: scripts/setup.sh installs torch first and by itself, for the
# machine at hand. Only the tests ask for Triton by themselves, at the version of pyproject.toml, for machines without a
# GPU. The demo's packages are added as pyproject.toml pins them, without their dependencies: one of them
# names a compiler-built library that nobody needs to read its file.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV="${VENV:-.venv}"
export UV_PYTHON_DOWNLOADS=never
constraint=$(mktemp)
trap 'rm -f "$constraint"' EXIT
"$VENV/bin/pip" freeze | sed -n 's/^\(torch==[0-9.]*\).*/\1/p' > "$constraint"

resolve() {
  "$VENV/bin/uv" pip compile pyproject.toml "$@" --python "$VENV/bin/python" --python-version 3.11 \
    --no-header --no-annotate -q --constraint "$constraint" |
    sed -E '/^(torch|triton|cuda-[a-z]+|nvidia-[a-z0-9-]*(cu[0-9]+|cublas|cuda-[a-z]+|cufft|cufile|curand|cusolver|cusparse|nvjitlink|nvtx))==/d'
}

pins() {
  "$VENV/bin/python" -c 'import sys, tomllib; print(*(line for line in tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]] if "==" in line.split(";")[0]), sep="\n")' "$1"
}

{ resolve; pins demo; } | sort -u > requirements.lock
{ resolve --extra test; pins test; } | sort -u | comm -23 - requirements.lock > requirements-test.lock
