#!/usr/bin/env bash
# Copies this checkout, as committed, to all workers of a TPU VM and installs it there with the TPU build of JAX.
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"
parse_options "" "" "" "$@"
no_rest

cd "$(dirname "$0")/.."
archive="$(mktemp -t salmu_jax.XXXXXX.tar.gz)"
trap 'rm -f "$archive"' EXIT
run git archive --format=tar.gz --output "$archive" HEAD
tpus tpu-vm scp "$archive" "${OPTION[name]}:salmu_jax.tar.gz" --worker all
tpus tpu-vm ssh "${OPTION[name]}" --worker all --command \
  "mkdir -p salmu_jax && tar -xzf salmu_jax.tar.gz -C salmu_jax && cd salmu_jax && python3 -m venv .venv && .venv/bin/pip install --quiet --editable . 'jax[tpu]'"
