#!/usr/bin/env bash
# Asks for a TPU slice as a queued resource, which comes when there is one:
#   tpu_scripts/create.sh --name my-tpu --zone us-east5-a --accelerator-type v6e-64 --spot --valid-until-duration 12h
# The runtime version follows from the accelerator unless it is given; --valid-until-duration ends the waiting.
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"
parse_options "accelerator-type runtime-version valid-until-duration" "spot" "accelerator-type" "$@"
no_rest

runtime="${OPTION[runtime-version]:-}"
if [ -z "$runtime" ]; then
  case "${OPTION[accelerator-type]}" in
    v2-* | v3-* | v4-*) runtime="tpu-ubuntu2204-base" ;;
    v5litepod-*) runtime="v2-alpha-tpuv5-lite" ;;
    v5p-*) runtime="v2-alpha-tpuv5" ;;
    v6e-*) runtime="v2-alpha-tpuv6e" ;;
    *) fail "--accelerator-type ${OPTION[accelerator-type]} is not known here (v4-8, v5litepod-16, v5p-8, v6e-8, ...); give its --runtime-version" ;;
  esac
fi
until="${OPTION[valid-until-duration]:-}"
[[ -z "$until" || "$until" =~ ^([0-9]+[smhd])+$ ]] || fail "--valid-until-duration $until is not a duration such as 90m, 12h or 2d"

tpus queued-resources create "${OPTION[name]}" --node-id "${OPTION[name]}" \
  --accelerator-type "${OPTION[accelerator-type]}" --runtime-version "$runtime" \
  ${OPTION[spot]:+--spot} ${until:+--valid-until-duration "$until"}
echo "# when $(here watch.sh) says ACTIVE: $(here set_up.sh)"
