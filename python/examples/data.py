"""The examples' data: samples of eight groups, of which the task asks for two classes and the reference sees all."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def samples(n: int = 512) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs (n, 32), labels (n,), and the frozen reference's features (n, 48)."""
    rng = torch.Generator().manual_seed(0)
    centres, projection = torch.randn(8, 32, generator=rng), torch.randn(32, 48, generator=rng) / 32**0.5
    group = torch.randint(0, 8, (n,), generator=rng)
    return centres[group] + 0.3 * torch.randn(n, 32, generator=rng), group % 2, centres[group] @ projection


class Tower(nn.Module):
    """An encoder with a head for the task."""

    def __init__(self) -> None:
        """Draw the weights from torch's global generator."""
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 16))
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (n, 16) of unit length, and logits (n, 2)."""
        features = nn.functional.normalize(self.encoder(x), dim=-1)
        return features, self.head(features)
