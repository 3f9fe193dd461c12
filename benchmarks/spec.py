"""What a contestant is to do in a round, as it is told to the contestant's process."""

import dataclasses
import json
from collections.abc import Callable
from typing import Literal

Round = Callable[[], object]
"""Does what is timed, once, and returns when it is done."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """The work of one process, and the network, data and loss that it is about."""

    contestant: str = "steps.ours"
    """A module of this package, and its function `Spec -> Round`."""
    steps: int = 1
    """How often the work is done in a round."""
    depth: int = 16
    widen: int = 2
    size: int = 32
    """Height and width of the images."""
    stage: Literal["sup", "scl"] = "sup"
    """Which loss: cross-entropy, or supervised contrastive of two views."""
    models: int = 1
    """In the population."""
    batch: int = 128
    """Images per model and step."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the networks compute in."""
    models_per_program: int | None = None
    """As `config.Execution` has it, like `convolution`."""
    convolution: Literal["unrolled", "onednn", "grouped", "im2col"] = "unrolled"
    steps_per_call: int = 1
    """That one call of a program takes."""
    devices: int | None = None
    """Into which JAX divides the CPU; None: as JAX comes."""
    threads: int = 1
    """Of PyTorch."""
    compiled: bool = False
    """Whether PyTorch's model is compiled by `torch.compile`."""

    def to_json(self) -> str:
        """All fields, for the command line of a process."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "Spec":
        """What `to_json` made a text of."""
        return Spec(**json.loads(text))
