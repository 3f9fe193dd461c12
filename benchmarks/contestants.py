"""The process of one contestant: sets it up, then does a round for every line on stdin.

Started by `benchmarks.duel`, which takes the times; each has its own environment and number of
devices. The contestants are the functions `Spec -> Round` of `steps`, `parts` and `pytorch`.
"""

import importlib
import json
import resource
import sys
from collections.abc import Callable

from benchmarks.spec import Round, Spec


def find(contestant: str) -> Callable[[Spec], Round]:
    """The function that sets a contestant up, for instance `steps.ours`.

    Its module is imported only now, so that PyTorch's process does without JAX and the other way
    round.
    """
    module, _, function = contestant.partition(".")
    return getattr(importlib.import_module(f"benchmarks.{module}"), function)


def main() -> None:
    """Runs a round for each request, and answers with the peak memory, in JSON."""
    spec = Spec.from_json(sys.argv[1])
    if spec.devices is not None:
        import jax

        jax.config.update("jax_num_cpu_devices", spec.devices)
    do_work = find(spec.contestant)(spec)
    for _ in sys.stdin:
        for _ in range(spec.steps):
            do_work()
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"peak_bytes": peak_kib * 1024}), flush=True)


if __name__ == "__main__":
    main()
