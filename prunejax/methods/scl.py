"""Entry: supervised contrastive training, the paper's `SCL`, then a linear head.

Source: Khosla et al. 2020.
"""

from jaxtyping import Float, Int

from prunejax.config import Config
from prunejax.methods.entry import METHODS, Loss, Method, Objective
from prunejax.methods.losses import collapsed_supcon, supcon
from prunejax.types import Array


def make_loss(config: Config) -> Loss:
    """Returns the loss with the temperatures of `config.supcon`."""
    settings = config.supcon

    def loss(
        embeddings: Float[Array, "views batch dim"], labels: Int[Array, " batch"]
    ) -> Float[Array, ""]:
        return supcon(embeddings, labels, settings.temperature, settings.base_temperature)

    return loss


def collapsed_loss(config: Config, samples: int) -> float:
    """The loss when all of `samples` embeddings coincide."""
    settings = config.supcon
    return collapsed_supcon(samples, settings.temperature, settings.base_temperature)


SCL = METHODS.add(
    Method(
        name="supcon",
        label="SCL",
        colour="#D55E00",  # Okabe & Ito's vermilion
        objective=Objective(
            make_loss=make_loss,
            views=2,
            network="projection",
            augment="scl_augment",
            collapsed_loss=collapsed_loss,
        ),
        stages=("scl", "head"),
    )
)
