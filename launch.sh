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
  prepare FLAGS     downloads a TFDS data set and prepares it: --dataset=cifar10 --data_dir=data
  slurm  FLAGS      the study as Slurm jobs: --nodes=2 --gpus=4; --print only shows them
  hosts  A,B,... COMMAND FLAGS
                    study, train or evaluate on several hosts without a scheduler: a process on each, over ssh
                    ("localhost" needs none); this directory and --workdir must be the same on all
  bench  FLAGS      times the training step against plain JAX and PyTorch: --suite=population
  setup             only installs
  clean             empties the cache (decoded data sets, compiled programs) and prints how much was freed

All of those with FLAGS, but hosts, answer --help: ./launch.sh study --help
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
    -gpus) if [[ $next != 0 ]]; then extras+=(cuda); fi ;; # which the nodes have, if not this machine
    -gpus=0) ;;
    -gpus=*) extras+=(cuda) ;;
    *://*) extras+=(remote) ;;
    esac
  done
  setup "${extras[@]}"
}

test_tools() { # The report's page is tested in Chromium, batch jobs with Slurm; without them these tests are skipped.
  local missing=()
  command -v chromium chromium-browser google-chrome >/dev/null || missing+=(chromium)
  command -v slurmctld >/dev/null || missing+=(slurmctld slurmd slurm-client munge)
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

on_hosts() { # on_hosts A,B,... COMMAND FLAGS: one that fails stops the others; a signal has all of them save and stop
  local hosts host name line variable code=0 last
  IFS=, read -ra hosts <<<"$1"
  name=${hosts[0]#*@} # of USER@HOST
  for host in "${hosts[@]}"; do
    if [[ $name == localhost && $host != localhost ]]; then name=$(hostname -f); fi
  done
  address=$name:${PORT:-8476}
  line="cd $(printf %q "$PWD") &&"
  # What is set here holds on all hosts.
  for variable in $(compgen -e | grep -E '^(GLIBC_TUNABLES$|JAX_|XLA_|NCCL_|TFDS_|TQDM_)'); do
    line+=" $variable=$(printf %q "${!variable}")"
  done
  line+=" exec $(printf %q "$here/.venv/bin/python") -P -m experiments.$2"
  line+="$(printf ' %q' "${@:3}" "--coordinator_address=$address" "--num_processes=${#hosts[@]}")"
  trap 'signalled=true; stop "${hosts[@]}"' TERM INT HUP
  for host in "${!hosts[@]}"; do
    if [[ ${hosts[host]} == localhost ]]; then
      bash -c "$line --process_id=$host" &
    else
      ssh "${hosts[host]}" "$line --process_id=$host" </dev/null &
    fi
  done
  while [[ -n $(jobs -p) ]]; do
    signalled=false
    wait -n && continue
    last=$?
    if $signalled; then continue; fi # it is the waiting that was interrupted
    ((code)) || code=$last
    if ((last != 75)); then stop "${hosts[@]}"; fi # 75: stopped, as all are
  done
  exit $code
}

stop() { # stop HOSTS, each once: a second signal would not wait
  local host line="pkill -TERM -f '^/.*/.venv/bin/python -P -m experiments.*--coordinator_address=$address'"
  for host in $(printf '%s\n' "$@" | sort -u); do
    if [[ $host == localhost ]]; then bash -c "$line"; else ssh "$host" "$line" </dev/null; fi || true
  done
}

command=${1:-}
shift || true
case "$command" in
demo)
  for_study "$@"
  run study --preset=digits --study=paper,when --begins=0.0,0.25,0.5,0.75 --workdir=runs/digits "$@"
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
setup | clean)
  if (($# > 0)); then fail "$command takes no arguments, and not '$1'"; fi
  setup
  if [[ $command == clean ]]; then run clean; fi
  ;;
bench)
  setup bench
  export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}
  exec python -P -m benchmarks.run --out="$here/benchmarks/results/cpu" "$@"
  ;;
prepare)
  setup prepare
  run prepare "$@"
  ;;
report)
  for_study "$@"
  run report --measure "$@"
  ;;
study | train | evaluate | slurm | join)
  for_study "$@"
  run "$command" "$@"
  ;;
hosts)
  case ${1:-}/${2:-} in
  /* | -*) fail "hosts: name them first: A,B,..." ;;
  */study | */train | */evaluate) ;;
  *) fail "hosts: after them name the command: study, train or evaluate" ;;
  esac
  for_study "${@:3}"
  on_hosts "$@"
  ;;
"" | -h | --help | help) usage ;;
*) fail "unknown command '$command'" ;;
esac
