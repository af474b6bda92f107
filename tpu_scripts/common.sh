# Sourced by the scripts beside it: options, and a way to run a command or, with --dry-run, to print it.
# shellcheck shell=bash
set -euo pipefail

SCRIPT="$(basename "$0")"
declare -A OPTION=()
REST=()

# fail MESSAGE: bad input, answered with one line and status 2.
fail() {
  echo "$SCRIPT: $1" >&2
  exit 2
}

# parse_options "VALUED..." "FLAGS..." "REQUIRED..." ARGUMENTS...: fills OPTION[name]; what follows a -- is in REST.
# Every script takes --name, --zone, --project and --dry-run besides its own.
parse_options() {
  local valued=" name zone project $1 " flags=" dry-run $2 " required="name zone $3" name
  shift 3
  while [ $# -gt 0 ]; do
    if [ "$1" = -- ]; then
      shift
      REST=("$@")
      break
    fi
    name="${1%%=*}"
    name="${name#--}"
    if [[ "$1" != --?* || "$name" == *[!a-z-]* ]]; then
      fail "unknown argument $1; options are$(options "$valued$flags")"
    elif [[ "$flags" == *" ${1#--} "* ]]; then
      OPTION[$name]=1
      shift
    elif [[ "$valued" != *" $name "* ]]; then
      fail "unknown option $1; options are$(options "$valued$flags")"
    elif [[ "$1" == *=?* ]]; then
      OPTION[$name]="${1#*=}"
      shift
    else
      [[ $# -gt 1 && "$1" != *= && -n "$2" && "$2" != -* ]] || fail "--$name needs a value"
      OPTION[$name]="$2"
      shift 2
    fi
  done
  for name in $required; do
    [ -n "${OPTION[$name]:-}" ] || fail "--$name is missing; options are$(options "$valued$flags")"
  done
  # gcloud would take a name with a leading dash for an option.
  [[ "${OPTION[name]}" =~ ^[a-z][a-z0-9-]*$ ]] || fail "--name ${OPTION[name]}: small letters, digits and dashes, a letter first"
}

options() {
  local name
  for name in $1; do printf ' --%s' "$name"; done
}

# no_rest: for scripts that take nothing after --.
no_rest() {
  [ "${#REST[@]}" -eq 0 ] || fail "nothing is taken after --"
}

# run COMMAND...: runs it or, with --dry-run, prints it as one would type it.
run() {
  if [ -n "${OPTION[dry-run]:-}" ]; then
    printf '%q' "$1"
    printf ' %q' "${@:2}"
    printf '\n'
  else
    "$@"
  fi
}

# tpus GROUP SUBCOMMAND ARGUMENTS...: gcloud's TPU command with zone and project.
tpus() {
  run gcloud compute tpus "$@" --zone "${OPTION[zone]}" ${OPTION[project]:+--project "${OPTION[project]}"}
}

# here SCRIPT: how another of these scripts is called for the same TPU.
here() {
  printf 'tpu_scripts/%s --name %q --zone %q' "$1" "${OPTION[name]}" "${OPTION[zone]}"
  [ -z "${OPTION[project]:-}" ] || printf ' --project %q' "${OPTION[project]}"
}
