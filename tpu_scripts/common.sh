# Sourced by the scripts beside it: options, and a way to run a command or, with --dry-run, to print it.
# shellcheck shell=bash
set -euo pipefail

DRY_RUN=""
NAME=""
ZONE=""
PROJECT=""

usage() {
  echo "usage: $(basename "$0") --name TPU-VM --zone ZONE [--project PROJECT] [--dry-run] [-- ARGUMENTS OF salmu]" >&2
  exit 2
}

parse_options() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --name) NAME="${2:?--name needs a value}"; shift 2 ;;
      --zone) ZONE="${2:?--zone needs a value}"; shift 2 ;;
      --project) PROJECT="${2:?--project needs a value}"; shift 2 ;;
      --dry-run) DRY_RUN=1; shift ;;
      --) shift; break ;;
      *) echo "$(basename "$0"): unknown option $1" >&2; usage ;;
    esac
  done
  if [ -z "$NAME" ] || [ -z "$ZONE" ]; then usage; fi
  REST=("$@")
}

run() {
  if [ -n "$DRY_RUN" ]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

# tpu_vm SUBCOMMAND ARGUMENTS...: gcloud's TPU VM command with zone and project.
tpu_vm() {
  run gcloud compute tpus tpu-vm "$@" --zone "$ZONE" ${PROJECT:+--project "$PROJECT"}
}
