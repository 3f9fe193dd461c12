"""JAX, as a command starts it: what the user sets in the environment comes before our defaults."""

import os
import sys

from absl import flags

from prunejax.config import UserError
from prunejax.config.errors import in_one_line

FLAGS = flags.FLAGS
HOSTS = ("distributed", "coordinator_address", "num_processes", "process_id")
"""The flags of one of several processes."""
MIN_COMPILE_TIME_S = 0.5
"""Programs that compile faster are not kept."""


def start_jax(names: tuple[str, ...], computes: bool) -> None:
    """Sets JAX up, joins other processes if there are any, and finds the devices.

    Args:
        names: the flags of the command.
        computes: whether devices are needed.

    Raises:
        UserError: if JAX does not start, or the other processes cannot be joined.
    """
    try:
        _configure(names)
        if "distributed" in names:
            _connect(names)
        if computes:
            import jax

            jax.devices()
    except UserError:
        raise
    except Exception as error:  # of JAX, its plugins or the drivers
        raise UserError(f"JAX does not start ({in_one_line(error)}){_environment()}") from None


def _environment() -> str:
    """What the environment says about it."""
    found = []
    for name, value in os.environ.items():
        if name.startswith(("JAX_", "XLA_")):
            found.append(f"{name}={value}")
    if not found:
        return ""
    return f"; the environment has {', '.join(sorted(found))}: change or unset that"


def _configure(names: tuple[str, ...]) -> None:
    """Devices, determinism and the cache of compiled programs; before JAX computes anything."""
    import jax
    import joblib

    from prunejax import cache

    flags_of_xla = os.environ.get("XLA_FLAGS", "")
    if "deterministic" in names and FLAGS.deterministic:
        os.environ["XLA_FLAGS"] = f"{flags_of_xla} --xla_gpu_deterministic_ops=true"

    defaults = {
        "jax_compilation_cache_dir": str(cache.cache_dir() / "xla"),
        "jax_persistent_cache_min_compile_time_secs": MIN_COMPILE_TIME_S,
    }
    # XLA splits a step over cores worse than a population splits over devices.
    if "xla_force_host_platform_device_count" not in flags_of_xla:
        defaults["jax_num_cpu_devices"] = joblib.cpu_count()
    for name, value in defaults.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    cache.trim("xla")


def _connect(names: tuple[str, ...]) -> None:
    """Joins the other processes, if there are any; only the first prints."""
    from prunejax.training import hosts

    by_hand = [FLAGS.coordinator_address, FLAGS.num_processes, FLAGS.process_id]
    if any(value is not None for value in by_hand) and None in by_hand:
        raise UserError("--coordinator_address, --num_processes and --process_id belong together")
    if FLAGS.distributed or None not in by_hand:
        hosts.connect(*by_hand)
        for name in names:
            if name not in (*HOSTS, "data_dir"):
                hosts.require_same(f"--{name}", str(FLAGS[name].value))
        if not hosts.is_first():
            sys.stdout = open(os.devnull, "w")
