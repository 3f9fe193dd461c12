"""What a training method is."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from jaxtyping import Float, Int

from prunejax.config import Config
from prunejax.registry import Registry
from prunejax.types import Array

Loss = Callable[[Array, Any], Float[Array, ""]]
"""`(outputs, labels [batch]) -> loss`. The outputs are those of the objective's network:
`[batch, dim]` for one view of each image, `[views, batch, dim]` for several."""


class Objective(NamedTuple):
    """What a stage of training minimises."""

    make_loss: Callable[[Config], Loss]
    """Returns the loss of a run with these settings."""
    views: int = 1
    """Random views of each image in a batch."""
    network: Literal["head", "projection"] = "head"
    """Which part of the model stands between the encoder and the loss: the linear head, whose
    outputs are logits, or the projection head, which is thrown away after its stage."""
    augment: Literal["sup_augment", "scl_augment"] = "sup_augment"
    """The field of the configuration that says how views are drawn."""
    collapsed_loss: Callable[[Config, int], float] | None = None
    """`(settings, views x batch) -> loss` of an encoder that maps all images to one point, if the
    method knows such a plateau. A model that stays there has failed."""


class Method(NamedTuple):
    """How the models of an experiment are trained."""

    name: str
    label: str
    """The name in tables and figures, for instance `SCL`."""
    colour: str
    """The colour of its points and bars, as Matplotlib writes it."""
    objective: Objective
    """The objective of its first stage; later stages and fine-tuning classify by cross-entropy."""
    stages: tuple[str, ...] = ("sup",)
    """The fields of the configuration with the settings of its stages, in order."""


METHODS: Registry[Method] = Registry("method", "prunejax.methods")


def accuracy_of(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Float[Array, ""]:
    """The fraction of a batch in which the largest logit is the label's."""
    return (logits.argmax(axis=-1) == labels).mean()
