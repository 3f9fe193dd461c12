"""Entry: contrastive training without labels, then a linear head with them.

The only positive of a view is the other view of its image. Views, batches, stages and temperatures
are those of SCL with the same seed, so that the two differ in the labels alone.
Source: Chen et al. 2020, eq. 1.
"""

from jaxtyping import Float

from prunejax.config import Config
from prunejax.methods.entry import METHODS, Loss, Method, Objective
from prunejax.methods.losses import collapsed_supcon, supcon
from prunejax.types import Array


def make_loss(config: Config) -> Loss:
    """Returns the loss with the temperatures of `config.supcon`."""
    settings = config.supcon

    def loss(embeddings: Float[Array, "views batch dim"], labels: object) -> Float[Array, ""]:
        del labels
        return supcon(embeddings, None, settings.temperature, settings.base_temperature)

    return loss


def collapsed_loss(config: Config, samples: int) -> float:
    """The loss when all of `samples` embeddings coincide."""
    settings = config.supcon
    return collapsed_supcon(samples, settings.temperature, settings.base_temperature)


SIMCLR = METHODS.add(
    Method(
        name="simclr",
        label="SimCLR",
        colour="#009E73",  # Okabe & Ito's bluish green
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
