#!/usr/bin/env bash
# Runs salmu on a TPU VM (one host) that set_up.sh has prepared, in a tmux session that outlives this connection:
#   tpu_scripts/launch.sh --name my-tpu --zone us-central2-b -- pretrain --config configs/clean_vitb16.py
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"
parse_options "$@"
[ "${#REST[@]}" -gt 0 ] || { echo "launch.sh: no arguments of salmu after --" >&2; exit 2; }

command="cd salmu_jax && .venv/bin/salmu$(printf ' %q' "${REST[@]}") 2>&1 | tee -a salmu.log"
tpu_vm ssh "$NAME" --command "tmux new-session -d -s salmu $(printf '%q' "$command")"
echo "watch it with: gcloud compute tpus tpu-vm ssh $NAME --zone $ZONE --command 'tail -f salmu_jax/salmu.log'"
