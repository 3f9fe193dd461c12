#!/usr/bin/env bash
# Sets up .venv beside this script, then runs what is asked. Safe to run again: an unchanged set-up is not repeated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'EOF'
./launch.sh COMMAND [FLAGS]

  demo              the whole study on the embedded digits: trains, measures, reports (about 6 minutes on two cores)
  test              the test suite
  check             what CI runs: formatting, lint, types, tests
  study  FLAGS      all experiments of a preset, measures and report; see: ./launch.sh study --help
  train | evaluate | report | prepare  FLAGS
                    one step of it; each answers --help
  setup             only installs

PYTHON names the interpreter (3.11 to 3.13); with a GPU in sight the CUDA build of JAX is installed.
EOF
}

setup() { # setup EXTRA...
  local extras stamp target=.
  extras=$(IFS=,; echo "$*")
  if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then extras="$extras,cuda"; fi
  if [[ -n $extras ]]; then target=".[${extras#,}]"; fi
  stamp=.venv/installed-${extras//,/-}
  if [[ ! -x .venv/bin/python ]]; then "${PYTHON:-python3}" -m venv .venv; fi
  if ! cmp -s <(cat pyproject.toml .ci/constraints.txt) "$stamp"; then
    echo "installing into .venv (extras: ${extras:-none}) ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e "$target" || exit
    cat pyproject.toml .ci/constraints.txt >"$stamp"
  fi
  # Fresh memory for every step's temporaries costs a CPU 15 to 25%; huge pages make it cheap.
  export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
  export PATH="$PWD/.venv/bin:$PATH"
}

command=${1:-}
shift || true
case "$command" in
demo)
  setup
  python -m experiments.study --preset=digits --workdir=runs/digits "$@"
  ;;
test)
  setup test
  python -m pytest -n auto "$@"
  ;;
check)
  setup dev
  ruff format --check .
  ruff check .
  pyright
  python -m pytest -n auto "$@"
  ;;
setup) setup ;;
prepare)
  setup prepare
  python -m experiments.prepare "$@"
  ;;
study | train | evaluate | report)
  if [[ " $* " == *" --tensorboard "* ]]; then setup tensorboard; else setup; fi
  python -m "experiments.$command" "$@"
  ;;
"" | -h | --help | help) usage ;;
*)
  echo "error: unknown command '$command'; see ./launch.sh --help" >&2
  exit 2
  ;;
esac
