#!/usr/bin/env bash
# Runs salmu on all workers of a TPU VM that set_up.sh has prepared, in tmux sessions that outlive this connection:
#   tpu_scripts/launch.sh --name my-tpu --zone us-east5-a -- pretrain --config configs/clean_vitb16.py --workdir DIR
# Each worker's output is in its salmu_jax/salmu.log. With several workers, the directories have to be shared by them. After
# a preemption the same command goes on from the last state, if DIR outlived the TPU VM.
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"
parse_options "" "" "" "$@"
[ "${#REST[@]}" -gt 0 ] || fail "no arguments of salmu after --"

# The hosts of a slice find each other by its metadata; a single host is then a run of one process. Another --distributed
# among the arguments comes later and wins.
case "${REST[0]}" in
  bench | generate | build | pretrain | unlearn | evaluate | report) REST=("${REST[0]}" --distributed on "${REST[@]:1}") ;;
esac
salmu=".venv/bin/salmu$(printf ' %q' "${REST[@]}")"
command="cd salmu_jax && { $salmu; echo \"salmu: exit status \$?\"; } >>salmu.log 2>&1"
tpus tpu-vm ssh "${OPTION[name]}" --worker all --command "tmux new-session -d -s salmu $(printf '%q' "$command")"
echo "# watch it: $(here watch.sh)"
