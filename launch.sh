#!/usr/bin/env bash
# Sets up .venv beside this script, then runs what is asked, in the directory where it is called:
# paths and one's own studies are found from there. Safe to run again: an unchanged set-up is not repeated.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'EOF'
./launch.sh COMMAND [FLAGS]

  demo              the whole study on the embedded digits: trains, measures, reports (5 to 10 minutes on two cores)
  test              the test suite
  check             what CI runs: formatting, lint, types, tests
  study  FLAGS      all experiments of a study, measures and report: --preset=digits --study=criteria;
                    see: ./launch.sh study --help
  report FLAGS      measures and report of what is trained: --workdir=runs/digits
  train | evaluate | prepare  FLAGS
                    one step of it; each answers --help
  slurm  FLAGS      the study as Slurm jobs: --nodes=2 --gpus=4; --print only shows them; see: ./launch.sh slurm --help
  hosts  A,B,... COMMAND FLAGS
                    study, train or evaluate on several hosts without a scheduler: a process on each, over ssh
                    ("localhost" needs none); this directory and --workdir must be the same on all
  bench FLAGS       compares with other ways to compute the same: --suite=population; see: ./launch.sh bench --help
  setup             only installs

PYTHON names the interpreter (3.11 to 3.13); with a GPU in sight the CUDA build of JAX is installed.
EOF
}

setup() { # setup EXTRA...
  local extras stamp target=.
  extras=$(IFS=,; echo "$*")
  if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then extras="$extras,cuda"; fi
  if [[ -n $extras ]]; then target=".[${extras#,}]"; fi
  stamp=$here/.venv/installed-${extras//,/-}
  if [[ ! -x $here/.venv/bin/python ]]; then "${PYTHON:-python3}" -m venv "$here/.venv"; fi
  if ! cmp -s <(cat "$here/pyproject.toml" "$here/.ci/constraints.txt") "$stamp"; then
    echo "installing into $here/.venv (extras: ${extras:-none}) ..." >&2
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
  local extras=()
  if [[ " $* " == *" --tensorboard "* ]]; then extras+=(tensorboard); fi
  if [[ " $* " == *://* ]]; then extras+=(remote); fi
  if [[ " $* " == *" --gpus"* ]]; then extras+=(cuda); fi # which the nodes have, if not this machine
  setup "${extras[@]}"
}

test_tools() { # The report's page is tested in Chromium, batch jobs with Slurm; without them these tests are skipped.
  local missing=()
  command -v chromium chromium-browser google-chrome >/dev/null || missing+=(chromium)
  command -v slurmctld >/dev/null || missing+=(slurmctld slurmd slurm-client munge)
  if [[ ${#missing[@]} == 0 ]]; then return; fi
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    echo "installing for the tests: ${missing[*]} ..." >&2
    if apt-get -qq update && apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null; then return; fi
  fi
  echo "not here, and could not be installed: ${missing[*]}; the tests that need them are skipped" >&2
}

on_hosts() { # on_hosts A,B,... COMMAND FLAGS: one that fails stops the others; a signal has all of them save and stop
  local hosts host name line code=0 last
  IFS=, read -ra hosts <<<"${1:?name the hosts: A,B,...}"
  name=${hosts[0]#*@} # of USER@HOST
  for host in "${hosts[@]}"; do
    if [[ $name == localhost && $host != localhost ]]; then name=$(hostname -f); fi
  done
  address=$name:${PORT:-8476}
  line="cd $(printf %q "$PWD") && GLIBC_TUNABLES=$GLIBC_TUNABLES exec $(printf %q "$here/.venv/bin/python")"
  line+=" -m experiments.${2:?name the command: study, train or evaluate}"
  line+="$(printf ' %q' "${@:3}" "--coordinator_address=$address" "--num_processes=${#hosts[@]}")"
  for host in "${!hosts[@]}"; do
    if [[ ${hosts[host]} == localhost ]]; then
      bash -c "$line --process_id=$host" &
    else
      ssh "${hosts[host]}" "$line --process_id=$host" </dev/null &
    fi
  done
  trap 'stop "${hosts[@]}"' TERM INT
  while [[ -n $(jobs -p) ]]; do
    wait -n && continue
    last=$?
    if ((last > 128)) && [[ -n $(jobs -pr) ]]; then continue; fi # a signal to this script interrupted the waiting
    ((code)) || code=$last
    if ((last != 75)); then stop "${hosts[@]}"; fi # 75: stopped, as all are
  done
  exit $code
}

stop() { # stop HOSTS, each once: a second signal would not wait
  local host line="pkill -TERM -f '^/.*/.venv/bin/python -m experiments.*--coordinator_address=$address'"
  for host in $(printf '%s\n' "$@" | sort -u); do
    if [[ $host == localhost ]]; then bash -c "$line"; else ssh "$host" "$line" </dev/null; fi || true
  done
}

command=${1:-}
shift || true
case "$command" in
demo)
  setup
  exec python -m experiments.study --preset=digits --workdir=runs/digits "$@"
  ;;
test)
  setup test
  test_tools
  cd "$here"
  python -m pytest -n auto "$@"
  ;;
check)
  setup dev
  test_tools
  cd "$here"
  ruff format --check .
  ruff check .
  pyright
  python -m pytest -n auto "$@"
  ;;
setup) setup ;;
bench)
  setup bench
  cd "$here"
  python -m benchmarks.run "$@"
  ;;
prepare)
  setup prepare
  python -m experiments.prepare "$@"
  ;;
report)
  for_study "$@"
  python -m experiments.evaluate "$@"
  python -m experiments.report "$@"
  ;;
study | train | evaluate)
  for_study "$@"
  exec python -m "experiments.$command" "$@" # so that a signal to this script reaches it
  ;;
slurm)
  for_study "$@"
  exec python -m experiments.slurm "$@"
  ;;
hosts)
  for_study "$@"
  on_hosts "$@"
  ;;
"" | -h | --help | help) usage ;;
*)
  echo "error: unknown command '$command'; see ./launch.sh --help" >&2
  exit 2
  ;;
esac
