#!/usr/bin/env bash
# Copies this checkout to a TPU VM (one host) and installs it there with the TPU build of JAX.
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"
parse_options "$@"

cd "$(dirname "$0")/.."
archive="$(mktemp -t salmu_jax.XXXXXX.tar.gz)"
trap 'rm -f "$archive"' EXIT
run git archive --format=tar.gz --output "$archive" HEAD
tpu_vm scp "$archive" "$NAME:salmu_jax.tar.gz"
tpu_vm ssh "$NAME" --command \
  "mkdir -p salmu_jax && tar -xzf salmu_jax.tar.gz -C salmu_jax && cd salmu_jax && python3 -m venv .venv && .venv/bin/pip install --quiet --editable . 'jax[tpu]'"
