"""The paper's network and step in PyTorch, what the authors' code computes, as the opponent."""

from collections.abc import Callable

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]

from benchmarks.spec import Spec


class Block(nn.Module):
    """A pre-activation block whose shortcut, where the width changes, sees the activated input."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm0 = nn.BatchNorm2d(inputs)
        self.conv0 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = None
        if inputs != width:
            self.shortcut = nn.Conv2d(inputs, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs, h, w]` -> `[batch, width, h / stride, w / stride]`."""
        activated = F.relu(self.norm0(x))
        hidden = self.conv0(activated)
        hidden = self.conv1(F.relu(self.norm1(hidden)))
        kept = x if self.shortcut is None else self.shortcut(activated)
        return hidden + kept


class WideResNet(nn.Module):
    """WideResNet-`depth`-`widen` without its classifier."""

    def __init__(self, depth: int, widen: int) -> None:
        super().__init__()
        inputs = 16
        layers: list[nn.Module] = [nn.Conv2d(3, inputs, 3, 1, 1, bias=False)]
        for group in range(3):
            width = 16 * 2**group * widen
            for block in range((depth - 4) // 6):
                halves = group > 0 and block == 0
                layers.append(Block(inputs, width, 2 if halves else 1))
                inputs = width
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, 3, h, w]` -> the mean over the positions, `[batch, 64 * widen]`."""
        return F.relu(self.norm(self.layers(x))).mean((2, 3))


def supcon(
    embeddings: Tensor, labels: Tensor, temperature: float = 0.5, base_temperature: float = 0.07
) -> Tensor:
    """The supervised contrastive loss. Source: Khosla et al. 2020, eq. 2.

    Args:
        embeddings: `[2 * batch, dim]`, of unit length; the first views, then the second.
        labels: `[batch]`.
        temperature: of the similarities.
        base_temperature: the loss is multiplied by `temperature / base_temperature`.
    """
    labels = labels.repeat(2)
    logits = embeddings @ embeddings.T / temperature
    itself = torch.eye(len(labels), dtype=torch.bool)
    positives = (labels[:, None] == labels[None, :]) & ~itself
    others = logits.masked_fill(itself, -torch.inf)
    log_probability = logits - torch.logsumexp(others, 1, keepdim=True)
    means = (log_probability * positives).sum(1) / positives.sum(1)
    return -(temperature / base_temperature) * means.mean()


def make_trainer(spec: Spec, seed: int) -> Callable[[Tensor, Tensor], None]:
    """Returns one SGD step of a model on `(images [n, 3, h, w], labels [batch])`.

    In bfloat16 the encoder and the head compute under `torch.autocast`, as one would write it; the
    loss, like the weights, is float32.
    """
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mixed = spec.dtype == "bfloat16"
    encoder = WideResNet(spec.depth, spec.widen)
    dim = 64 * spec.widen
    contrastive = spec.stage == "scl"
    if contrastive:
        head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 128))
    else:
        head = nn.Linear(dim, 10)
    model = nn.Sequential(encoder, head)
    model = model.to(device, memory_format=torch.channels_last)  # pyright: ignore
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)
    forward = torch.compile(model) if spec.compiled else model

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=mixed):
            outputs = forward(images)
        outputs = outputs.float()
        if contrastive:
            loss = supcon(F.normalize(outputs), labels)
        else:
            loss = F.cross_entropy(outputs, labels)
        loss.backward()
        optimizer.step()

    return step
