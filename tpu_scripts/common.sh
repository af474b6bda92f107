# Sourced by the scripts beside it. Parses options, and runs a command or, with --dry-run, prints it.
# shellcheck shell=bash
set -euo pipefail

SCRIPT="$(basename "$0")"
declare -A OPTION=()
REST=()

# fail MESSAGE: reports bad input in one line, with status 2.
fail() {
  echo "$SCRIPT: $1" >&2
  exit 2
}

# parse_options "VALUED..." "FLAGS..." ARGUMENTS...: fills OPTION[name]; arguments after -- go into REST.
# Every script also takes --name, --zone, --project, --dry-run and --help.
parse_options() {
  local valued=" name zone project $1 " flags=" dry-run help $2 " name
  shift 2
  while [ $# -gt 0 ]; do
    if [ "$1" = -- ]; then
      shift
      REST=("$@")
      break
    fi
    [[ "$1" == --?* ]] || fail "what is '$1'? All options begin with --, and --help lists them"
    name="${1%%=*}"
    name="${name#--}"
    if [[ "$flags" == *" $name "* ]]; then
      [[ "$1" != *=* ]] || fail "--$name takes no value"
      OPTION[$name]=1
      shift
    elif [[ "$valued" != *" $name "* ]]; then
      fail "no option --$name; --help lists them"
    elif [[ "$1" == *=?* ]]; then
      OPTION[$name]="${1#*=}"
      shift
    else
      [[ $# -gt 1 && "$1" != *= && -n "$2" && "$2" != --* ]] || fail "--$name needs a value"
      OPTION[$name]="$2"
      shift 2
    fi
  done
  if [ -n "${OPTION[help]:-}" ]; then
    sed -n '2,/^[^#]/{/^# shellcheck/d;s/^# \{0,1\}//p;}' "$0"
    printf 'options:'
    for name in $valued; do printf ' --%s VALUE' "$name"; done
    for name in $flags; do printf ' --%s' "$name"; done
    printf '\n'
    exit 0
  fi
  require name zone
  # gcloud would take a name with a leading dash for an option.
  [[ "${OPTION[name]}" =~ ^[a-z][a-z0-9-]*$ ]] ||
    fail "--name is '${OPTION[name]}'; lower-case letters, digits and dashes make a name"
}

# require NAME...: fails unless these options are given.
require() {
  local name
  for name in "$@"; do
    [ -n "${OPTION[$name]:-}" ] || fail "--$name is missing; --help lists all options"
  done
}

# no_rest: fails if there are arguments after --.
no_rest() {
  [ "${#REST[@]}" -eq 0 ] || fail "nothing is taken after --"
}

# quote WORD: prints it as one would type it in a shell.
quote() {
  if [[ "$1" =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then
    printf '%s' "$1"
  else
    printf "'%s'" "${1//\'/\'\\\'\'}"
  fi
}

# run COMMAND...: runs it or, with --dry-run, prints it.
run() {
  if [ -z "${OPTION[dry-run]:-}" ]; then
    "$@"
    return
  fi
  local separator="" word
  for word in "$@"; do
    printf '%s' "$separator"
    quote "$word"
    separator=" "
  done
  printf '\n'
}

# tpus GROUP SUBCOMMAND ARGUMENTS...: runs gcloud's TPU command with zone and project.
tpus() {
  run gcloud compute tpus "$@" --zone "${OPTION[zone]}" ${OPTION[project]:+--project "${OPTION[project]}"}
}

# here SCRIPT: prints the call of another of these scripts for the same TPU.
here() {
  printf 'tpu_scripts/%s --name %s --zone %s' "$1" "${OPTION[name]}" "$(quote "${OPTION[zone]}")"
  [ -z "${OPTION[project]:-}" ] || printf ' --project %s' "$(quote "${OPTION[project]}")"
}
