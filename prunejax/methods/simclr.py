"""Entry: contrastive training without labels, then a linear head with them.

The only positive of a view is the other view of its image. Views, batches, stages and temperatures
are those of SCL with the same seed, so that the two differ in the labels alone.
Source: Chen et al. 2020, eq. 1.
"""

from jaxtyping import Float

from prunejax.config import Config
from prunejax.methods.entry import METHODS, Loss, Method
from prunejax.methods.losses import supcon
from prunejax.methods.scl import SCL
from prunejax.types import Array


def make_loss(config: Config) -> Loss:
    """Returns the loss with the temperatures of `config.supcon`."""
    settings = config.supcon

    def loss(embeddings: Float[Array, "views batch dim"], labels: object) -> Float[Array, ""]:
        del labels
        return supcon(embeddings, None, settings.temperature, settings.base_temperature)

    return loss


SIMCLR = METHODS.add(
    Method(
        name="simclr",
        label="SimCLR",
        colour="#009E73",  # Okabe & Ito's bluish green
        objective=SCL.objective._replace(make_loss=make_loss),
        stages=SCL.stages,
    )
)
