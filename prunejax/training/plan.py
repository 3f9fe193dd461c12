"""How the members of a population are divided among programs, so that each fits the memory."""

import dataclasses
import platform

import jax
import numpy as np
from jax.sharding import Mesh

from prunejax.config import UserError
from prunejax.data import Dataset
from prunejax.memory import memory_bytes
from prunejax.training import hosts
from prunejax.training.devices import chunk_rows, make_mesh, target_of
from prunejax.training.programs import Programs, make_programs, state_shapes
from prunejax.training.spec import StageSpec, make_specs


@dataclasses.dataclass(frozen=True)
class Plan:
    """The chunks of a population, and the memory that they take."""

    models: int
    """Members of the population."""
    chunks: list[np.ndarray]
    """The members of each program, as indices; see `devices.chunk_rows`."""
    mesh: Mesh
    bytes: int
    """Peak memory of one process: arguments, results and temporaries of a program, and the states
    of the models that are not in it."""

    @property
    def models_per_program(self) -> int:
        """Members in one program, padding included."""
        return len(self.chunks[0])


def make_plan(spec: StageSpec, count: int, dataset: Dataset, program: Programs) -> Plan:
    """As many of `count` models per program as the memory holds, at most 8 a device.

    The memory is by the program's own count, and that of the states of all other models, which
    stay on the devices. `execution.models_per_program` sets another number. On CPU it is one a
    device: the features of more do not stay in its cache, and longer programs compile longer.

    Args:
        spec: the stage.
        count: members of the population.
        dataset: on which they train.
        program: the stage's programs.

    Raises:
        UserError: if not even one model fits, or not as many as `execution.models_per_program`
            says.
    """
    execution = spec.config.execution
    batch_size = min(spec.settings.batch_size, len(dataset.train_labels))
    wanted = execution.models_per_program
    per_device = 1 if jax.devices()[0].platform == "cpu" else 8
    most = wanted or per_device * len(jax.devices())
    each = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state_shapes(spec, 1)))
    while True:
        mesh = make_mesh(execution, min(most, count))
        chunks = chunk_rows(count, most, mesh.shape["models"])
        size, local = len(chunks[0]), len(mesh.local_devices)
        compiled = program(size, batch_size)
        usage = compiled.memory_analysis()
        needed = local * (usage.argument_size_in_bytes + usage.temp_size_in_bytes)
        # The states of the models in other programs; on CPU also those of a copy that is saved,
        # and so where several processes join theirs.
        trained = max(count, size)
        copies = trained - size
        if target_of(mesh).platform == "cpu" or not hosts.alone():
            copies += trained
        needed += copies * each * local // mesh.size
        memory = hosts.min_over_processes(available_memory(local))
        if needed <= memory:
            return Plan(count, chunks, mesh, needed)
        if wanted or most == 1:
            smaller = "execution.models_per_program" if size > 1 else f"{spec.stage}.batch_size"
            if copies * each > memory / 2:
                smaller = "models"
            raise UserError(
                f"stage {spec.stage!r}: a program of {size} models, among {trained} in all, needs "
                f"{needed / 2**30:.1f} GiB, and {memory / 2**30:.1f} GiB may be used; "
                f"lower {smaller}"
            )
        most = (min(most, size) + 1) // 2


def step_flops(spec: StageSpec, dataset: Dataset, program: Programs, plan: Plan) -> float:
    """Returns the floating-point operations of a step of one program, on all devices.

    XLA counts them, in a program without oneDNN's calls, which it does not know.

    Args:
        spec: the stage.
        dataset: on which it trains.
        program: the stage's programs.
        plan: of the population.
    """
    if spec.config.execution.convolution == "onednn":
        execution = dataclasses.replace(spec.config.execution, convolution="unrolled")
        config = dataclasses.replace(spec.config, execution=execution)
        program = make_programs(make_specs(config, dataset)[spec.stage], dataset)
    batch_size = min(spec.settings.batch_size, len(dataset.train_labels))
    compiled = program(plan.models_per_program, batch_size)
    return plan.mesh.size * float(compiled.cost_analysis()["flops"])


def available_memory(devices: int) -> float:
    """Bytes that programs on `devices` of this process may use together.

    That is 80% of the devices', or on CPU half of what the machine has for this process, which
    other processes of the same population on it share. What happens to be free does not count: a
    resumed run must divide its population as before to repeat it bit for bit.
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return 0.8 * stats["bytes_limit"] * devices
    here = platform.node()
    sharing = hosts.gather_texts(here).count(here)
    return memory_bytes() / 2 / sharing
