#!/usr/bin/env bash
# Deletes a queued resource with its TPU VM, and all that is on the VM's disk. Asks first, unless --yes.
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"
parse_options "" "yes" "" "$@"
no_rest

if [ -z "${OPTION[yes]:-}" ] && [ -z "${OPTION[dry-run]:-}" ]; then
  answer=""
  read -r -p "delete ${OPTION[name]} in ${OPTION[zone]} with everything on its disks? (yes/no) " answer || true
  [ "$answer" = yes ] || fail "nothing is deleted; answer yes, or give --yes"
fi
tpus queued-resources delete "${OPTION[name]}" --force --quiet
