"""Entry: supervised training by cross-entropy, the paper's `Sup`."""

from prunejax.methods.entry import METHODS, Method, Objective
from prunejax.methods.losses import cross_entropy

CLASSIFICATION = Objective(make_loss=lambda config: cross_entropy)
"""Also of the linear head of every other method, and of fine-tuning."""

SUP = METHODS.add(
    Method(
        name="cross_entropy",
        label="Sup",
        colour="#0072B2",  # Okabe & Ito's blue, as the other methods' safe for the colour-blind
        objective=CLASSIFICATION,
        stages=("sup",),
    )
)
