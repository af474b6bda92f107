#!/usr/bin/env bash
# Copies this checkout, as committed, to all workers of a TPU VM, and installs it there with the TPU build of JAX:
#   tpu_scripts/set_up.sh --name my-tpu --zone us-east5-a
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"
parse_options "" "" "$@"
no_rest

cd "$(dirname "$0")/.."
directory="$(mktemp -d)"
trap 'rm -rf "$directory"' EXIT
run git archive --format tar.gz --output "$directory/salmu_jax.tar.gz" HEAD
tpus tpu-vm scp "$directory/salmu_jax.tar.gz" "${OPTION[name]}:" --worker all
# The images' own Python is older than 3.11, so uv installs one.
# shellcheck disable=SC2016 # expanded on the workers
tpus tpu-vm ssh "${OPTION[name]}" --worker all --command 'set -e
mkdir -p salmu_jax && tar -xzf salmu_jax.tar.gz --recursive-unlink -C salmu_jax && cd salmu_jax
export PATH="$HOME/.local/bin:$PATH"
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/0.13.9/install.sh | sh
uv venv --quiet --allow-existing --python 3.12 .venv
uv pip install --quiet --no-deps --requirement requirements.lock --editable .
uv pip install --quiet --constraint requirements-test.lock '\''jax[tpu]'\''
.venv/bin/salmu --version'
