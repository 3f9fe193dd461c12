"""Contestants in PyTorch."""

import torch  # pyright: ignore[reportMissingImports]
from torch.nn.utils import prune  # pyright: ignore[reportMissingImports]

from benchmarks.pytorch_model import WideResNet, make_trainer
from benchmarks.spec import Round, Spec


def training(spec: Spec) -> Round:
    """The same network and step, channels_last, one model after another.

    It is given its batch ready on the device: no gathering and no augmentation, which the others
    do.
    """
    torch.set_num_threads(spec.threads)
    views = 2 if spec.stage == "scl" else 1
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.rand(views * spec.batch, 3, spec.size, spec.size, device=device)
    labels = torch.randint(10, (spec.batch,), device=device)
    trainers = [make_trainer(spec, seed) for seed in range(spec.models)]

    def step() -> None:
        for train_step in trainers:
            train_step(images, labels)
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def masks(spec: Spec) -> Round:
    """`torch.nn.utils.prune.l1_unstructured` of every convolution of all models, from new masks."""
    convolutions = []
    for _ in range(spec.models):
        for module in WideResNet(spec.depth, spec.widen).modules():
            if isinstance(module, torch.nn.Conv2d):
                convolutions.append(module)

    def update() -> None:
        for convolution in convolutions:
            prune.l1_unstructured(convolution, "weight", 0.9)
            prune.remove(convolution, "weight")

    return update
