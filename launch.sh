#!/usr/bin/env bash
# Sets up .venv beside this script, then runs what is asked, in the directory where it is called:
# paths and one's own studies are found from there. Safe to run again: an unchanged set-up is not repeated.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)

usage() {
  cat <<'EOF'
./launch.sh COMMAND [FLAGS]

  demo              the paper's study, and when to prune, on scikit-learn's digits (5 to 10 minutes on two cores)
  test              the test suite; arguments go to pytest: -m quick takes a part of under two minutes
  check             what CI runs: formatting, lint, types, tests
  study  FLAGS      trains, measures and reports all experiments of a study: --preset=digits --study=criteria
  train  FLAGS      trains one experiment: --preset=digits --experiment=scl_gmp
  evaluate FLAGS    measures the finished runs of a work directory: --workdir=runs/digits
  report FLAGS      measures what is not measured yet, then writes the report: --workdir=runs/digits
  join   FLAGS      merges measured runs of different seeds: --workdir=runs/all --parts=runs/a,runs/b
  prepare FLAGS     downloads a data set and prepares it, by `tfds build`: cifar10 --data_dir=data
  bench  FLAGS      times the training step against plain JAX and PyTorch: --suite=population
  setup             only installs

All of those with FLAGS answer --help: ./launch.sh study --help
Slurm: sbatch experiments/study.sbatch. Open MPI: mpirun -np 2 ./launch.sh study --distributed.
PYTHON names the interpreter (3.11 to 3.13). If an NVIDIA GPU is found, JAX is installed with CUDA.
EOF
}

fail() { # fail MESSAGE
  say "error: $*; see ./launch.sh --help"
  exit 2
}

say() { # say MESSAGE: where nothing can be printed, the work goes on
  (trap '' PIPE && echo "$*" >&2) || true
}

setup() { # setup EXTRA...
  local extras stamp target=.
  extras=$(IFS=,; echo "$*")
  if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then extras="$extras,cuda"; fi
  if [[ -n $extras ]]; then target=".[${extras#,}]"; fi
  stamp=$here/.venv/installed-${extras//,/-}
  if [[ ! -x $here/.venv/bin/python ]]; then "${PYTHON:-python3}" -m venv "$here/.venv"; fi
  if ! cmp -s <(cat "$here/pyproject.toml" "$here/.ci/constraints.txt") "$stamp"; then
    say "installing into $here/.venv (extras: ${extras:-none}) ..."
    (cd "$here" && .venv/bin/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e "$target") || exit
    cat "$here/pyproject.toml" "$here/.ci/constraints.txt" >"$stamp"
  fi
  # Fresh memory for every step's temporaries costs a CPU up to 25%: keep what was freed, in huge pages, in few arenas.
  local keep=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776
  keep+=:glibc.malloc.arena_max=$((2 * $(getconf _NPROCESSORS_ONLN)))
  export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:$keep}"
  export PATH="$here/.venv/bin:$PATH"
}

for_study() { # for_study FLAGS: sets up what they need
  local extras=() index word next
  for ((index = 1; index <= $#; index++)); do
    word=${!index}
    next=${*:index+1:1}
    case ${word/#--/-} in # absl takes one dash for two
    -tensorboard) if [[ ${next,,} != false ]]; then extras+=(tensorboard); fi ;;
    -tensorboard=[tT1]*) extras+=(tensorboard) ;;
    *://*) extras+=(remote) ;;
    esac
  done
  setup "${extras[@]}"
}

test_tools() { # Some tests need Chromium, Slurm or Open MPI; without them these are skipped.
  local missing=()
  command -v chromium chromium-browser google-chrome >/dev/null || missing+=(chromium)
  command -v slurmctld >/dev/null || missing+=(slurmctld slurmd slurm-client munge)
  command -v mpirun >/dev/null || missing+=(openmpi-bin)
  if [[ ${#missing[@]} == 0 ]]; then return; fi
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    say "installing for the tests: ${missing[*]} ..."
    if apt-get -qq update && apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null; then return; fi
  fi
  say "not here, and could not be installed: ${missing[*]}; the tests that need them are skipped"
}

run_tests() { # run_tests ARGUMENTS: in the checkout, unless one of them is a path from here
  local word inside=true
  for word in "$@"; do
    if [[ -e ${word%%::*} ]]; then inside=false; fi
  done
  if $inside; then cd "$here"; fi
  PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} exec python -m pytest -n auto "$@"
}

run() { # run COMMAND FLAGS: instead of this script, so that a signal to it arrives
  # -P: the directory may have a package of the name `experiments` too.
  exec python -P -m "experiments.$1" "${@:2}"
}

command=${1:-}
shift || true
case "$command" in
demo)
  for_study "$@"
  run study --preset=digits --study=paper,when --starts=0.0,0.25,0.5,0.75 --workdir=runs/digits "$@"
  ;;
test)
  setup test
  test_tools
  run_tests "$@"
  ;;
check)
  setup dev
  test_tools
  (cd "$here" && ruff format --check . && ruff check . && pyright)
  run_tests "$@"
  ;;
setup)
  if (($# > 0)); then fail "setup takes no arguments, and not '$1'"; fi
  setup
  ;;
bench)
  setup bench
  export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}
  exec python -P -m benchmarks.run --out="$here/benchmarks/results/cpu" "$@"
  ;;
prepare)
  setup prepare
  exec tfds build --file_format=array_record "$@"
  ;;
report)
  for_study "$@"
  run report --measure "$@"
  ;;
study | train | evaluate | join)
  for_study "$@"
  run "$command" "$@"
  ;;
"" | -h | --help | help) usage ;;
*) fail "unknown command '$command'" ;;
esac
