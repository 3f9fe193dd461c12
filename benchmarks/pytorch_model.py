"""The paper's network and training step in PyTorch, what the authors' code computes, as the benchmark's opponent."""

from collections.abc import Callable
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]


class Block(nn.Module):
    """A pre-activation block whose shortcut, where the width changes, sees the activated input."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm0, self.norm1 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(width)
        self.conv0 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, width, 1, stride, bias=False) if inputs != width else None

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs, h, w]` -> `[batch, width, h / stride, w / stride]`."""
        activated = F.relu(self.norm0(x))
        hidden = self.conv1(F.relu(self.norm1(self.conv0(activated))))
        return hidden + (x if self.shortcut is None else self.shortcut(activated))


class WideResNet(nn.Module):
    """WideResNet-`depth`-`widen` -> representation `[batch, 64 * widen]`."""

    def __init__(self, depth: int, widen: int) -> None:
        super().__init__()
        inputs = 16
        layers: list[nn.Module] = [nn.Conv2d(3, inputs, 3, 1, 1, bias=False)]
        for group in range(3):
            for block in range((depth - 4) // 6):
                width = 16 * 2**group * widen
                layers.append(Block(inputs, width, 2 if group and not block else 1))
                inputs = width
        self.layers, self.norm = nn.Sequential(*layers), nn.BatchNorm2d(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Averages over the positions."""
        return F.relu(self.norm(self.layers(x))).mean((2, 3))


def supcon(embeddings: Tensor, labels: Tensor, temperature: float = 0.5, base_temperature: float = 0.07) -> Tensor:
    """The supervised contrastive loss of `[2 * batch, dim]` unit rows, both views stacked."""
    labels = labels.repeat(2)
    logits = embeddings @ embeddings.T / temperature
    itself = torch.eye(len(labels), dtype=torch.bool)
    positives = (labels[:, None] == labels[None, :]) & ~itself
    log_probability = logits - torch.logsumexp(logits.masked_fill(itself, -torch.inf), 1, keepdim=True)
    means = (log_probability * positives).sum(1) / positives.sum(1)
    return -(temperature / base_temperature) * means.mean()


def make_trainer(spec: dict[str, Any], seed: int) -> Callable[[Tensor, Tensor], None]:
    """Returns one SGD step of a model on `(images [n, 3, h, w], labels [batch])`."""
    torch.manual_seed(seed)
    encoder = WideResNet(spec["depth"], spec["widen"])
    dim = 64 * spec["widen"]
    contrastive = spec["stage"] == "scl"
    head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 128)) if contrastive else nn.Linear(dim, 10)
    model = nn.Sequential(encoder, head).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        outputs = model(images.contiguous(memory_format=torch.channels_last))
        loss = supcon(F.normalize(outputs), labels) if contrastive else F.cross_entropy(outputs, labels)
        loss.backward()
        optimizer.step()

    return step
