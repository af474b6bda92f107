#!/usr/bin/env bash
# Deletes a queued resource with its TPU VM and everything on the VM's disks; asks first, unless --yes:
#   tpu_scripts/delete.sh --name my-tpu --zone us-east5-a
# --force also deletes one that is still active.
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"
parse_options "" "yes force" "$@"
no_rest

if [ -z "${OPTION[yes]:-}" ] && [ -z "${OPTION[dry-run]:-}" ]; then
  printf 'Delete %s in %s and all that is on its disks? [y/N] ' "${OPTION[name]}" "${OPTION[zone]}" >&2
  answer=""
  read -r answer || true
  if [ "$answer" != y ]; then
    echo "nothing is deleted" >&2
    exit 1
  fi
fi
tpus queued-resources delete "${OPTION[name]}" ${OPTION[force]:+--force} --quiet
