#!/usr/bin/env bash
# Shows the state of a queued resource and, while it is active, the log of one worker:
#   tpu_scripts/watch.sh --name my-tpu --zone us-east5-a --worker 0 --lines 50 --follow
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"
parse_options "worker lines" "follow" "$@"
no_rest
worker="${OPTION[worker]:-0}" lines="${OPTION[lines]:-20}"
[[ "$worker" =~ ^[0-9]+$ ]] || fail "--worker is '$worker'; 0 is the first"
[[ "$lines" =~ ^[0-9]+$ ]] || fail "--lines is '$lines'; a number is needed"

show() {
  tpus tpu-vm ssh "${OPTION[name]}" --worker "$worker" \
    --command "tail -n $lines ${OPTION[follow]:+-F }salmu_jax/salmu.log"
}

describe=(queued-resources describe "${OPTION[name]}" --format "value(state.state)")
if [ -n "${OPTION[dry-run]:-}" ]; then
  tpus "${describe[@]}"
  show
  exit
fi
state="$(tpus "${describe[@]}")"
echo "${OPTION[name]} is $state"
case "$state" in
  ACTIVE) show ;;
  SUSPENDING | SUSPENDED | FAILED)
    echo "It was preempted, or never granted. To resume: $(here delete.sh) --yes --force, then create.sh, set_up.sh and launch.sh"
    echo "as before; the same command resumes from the newest checkpoint in train.state_dir."
    ;;
  *) echo "There is nothing to see yet." ;;
esac
