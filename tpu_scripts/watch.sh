#!/usr/bin/env bash
# Says what became of a queued resource and, while it is active, follows the log of one worker (0 unless --worker N):
#   tpu_scripts/watch.sh --name my-tpu --zone us-east5-a
# Ends with status 75 if the TPU VM was taken away, and says how to go on.
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"
parse_options "worker" "" "" "$@"
no_rest
worker="${OPTION[worker]:-0}"
[[ "$worker" =~ ^[0-9]+$ ]] || fail "--worker $worker is not a number from 0"

follow() {
  tpus tpu-vm ssh "${OPTION[name]}" --worker "$worker" --command "tail -n 40 -F salmu_jax/salmu.log"
}

describe=(queued-resources describe "${OPTION[name]}" --format "value(state.state)")
if [ -n "${OPTION[dry-run]:-}" ]; then
  tpus "${describe[@]}"
  follow
  exit
fi
state="$(tpus "${describe[@]}")"
echo "${OPTION[name]}: $state"
case "$state" in
  ACTIVE) follow ;;
  SUSPENDING | SUSPENDED | FAILED | DELETING)
    echo "preempted, or given up: $(here delete.sh), then create.sh, set_up.sh and launch.sh as before; the same command goes on"
    exit 75
    ;;
  *) echo "not there yet; ask again later" ;;
esac
