#!/usr/bin/env bash
# Requests a TPU slice as a queued resource, which is granted when one is free:
#   tpu_scripts/create.sh --name my-tpu --zone us-east5-a --accelerator-type v6e-64 --runtime-version v2-alpha-tpuv6e --spot
# --valid-until-duration 6h limits the wait. Arguments after -- go to gcloud unchanged.
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"
parse_options "accelerator-type runtime-version valid-until-duration" "spot" "$@"
require accelerator-type runtime-version

until="${OPTION[valid-until-duration]:-}"
[[ -z "$until" || "$until" =~ ^[0-9]+[smhd]$ ]] ||
  fail "--valid-until-duration is '$until'; a number and s, m, h or d are needed, such as 6h"
tpus queued-resources create "${OPTION[name]}" --node-id "${OPTION[name]}" \
  --accelerator-type "${OPTION[accelerator-type]}" --runtime-version "${OPTION[runtime-version]}" \
  ${OPTION[spot]:+--spot} ${until:+--valid-until-duration "$until"} ${REST[@]+"${REST[@]}"}
[ -n "${OPTION[dry-run]:-}" ] || echo "when $(here watch.sh) says ACTIVE: $(here set_up.sh)"
