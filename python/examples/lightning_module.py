"""The penalty in a LightningModule.

::

    python examples/lightning_module.py

The loss is an attribute like any other: it has no parameters, is left out of checkpoints, and opens its session with
the first step, on whichever process that is.
"""

from __future__ import annotations

import pytorch_lightning as lightning
import torch
from data import Tower, samples
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import specalign.torch


class Aligned(lightning.LightningModule):
    """A tower that learns its task, and the reference's groups."""

    def __init__(self, weight: float = 2.0) -> None:
        """`weight` of the penalty."""
        super().__init__()
        self.tower = Tower()
        self.align = specalign.torch.SpecAlign(weight=weight, objective="ky_fan", k=8)
        self.history: list[float] = []

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Return the loss of one batch."""
        inputs, labels, reference = batch
        features, logits = self.tower(inputs)
        penalty = self.align(features, reference)
        self.history.append(penalty.item() / self.align.weight)
        return nn.functional.cross_entropy(logits, labels) + penalty

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(epochs: int = 20) -> list[float]:
    """Train; return the penalty of every step."""
    lightning.seed_everything(0)
    module = Aligned()
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="auto", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(*samples()), batch_size=128, shuffle=True))
    print(f"penalty {module.history[0]:.4f} -> {module.history[-1]:.4f}")
    return module.history


if __name__ == "__main__":
    main()
