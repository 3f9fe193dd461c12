"""The work of a contestant in a round, as it is sent to the contestant's process."""

import dataclasses
import json
from collections.abc import Callable
from typing import Literal

Round = Callable[[], object]
"""Does the timed work once, and returns when it is done."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """The work of one process, with its network, data and loss."""

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
    """Members of the population."""
    batch: int = 128
    """Images per model and step."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The dtype of activations and gradients."""
    models_per_program: int | None = None
    """The setting of `config.Execution`, like `convolution`."""
    convolution: Literal["unrolled", "onednn", "grouped", "im2col"] = "unrolled"
    steps_per_call: int = 1
    """Optimizer steps in one call of a program."""
    devices: int | None = None
    """The devices into which JAX divides the CPU; None: JAX's default."""
    threads: int = 1
    """The threads of PyTorch."""
    compiled: bool = False
    """Whether PyTorch's model is compiled by `torch.compile`."""

    def to_json(self) -> str:
        """All fields, for the command line of a process."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "Spec":
        """What `to_json` made a text of."""
        return Spec(**json.loads(text))
