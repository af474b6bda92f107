#!/usr/bin/env bash
# Runs salmu on all workers of a TPU VM that set_up.sh has prepared, in tmux sessions that outlive this connection:
#   tpu_scripts/launch.sh --name my-tpu --zone us-east5-a -- pretrain --config configs/clean_vitb16.py --workdir DIR
# Each worker's output is in its salmu_jax/salmu.log. Several workers must share the directories. After a preemption the
# same command resumes from the newest checkpoint, if DIR or train.state_dir outlived the TPU VM.
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"
parse_options "" "" "$@"
[ "${#REST[@]}" -gt 0 ] || fail "no arguments of salmu after --"

# The hosts of a slice find each other by its metadata; a single host runs alone.
case "${REST[0]}" in
  bench | generate | build | pretrain | unlearn | evaluate | report)
    [[ " ${REST[*]} " == *" --distributed"* ]] || REST+=(--distributed on)
    ;;
esac
salmu=".venv/bin/salmu"
for word in "${REST[@]}"; do salmu+=" $(quote "$word")"; done
inside="{ $salmu; echo \"salmu ended with status \$?\"; } 2>&1 | tee -a salmu.log"
tpus tpu-vm ssh "${OPTION[name]}" --worker all --command "cd salmu_jax && tmux new-session -d -s salmu $(quote "$inside")"
[ -n "${OPTION[dry-run]:-}" ] || echo "watch it: $(here watch.sh) --follow"
