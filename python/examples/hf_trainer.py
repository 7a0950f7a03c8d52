"""The penalty in a Hugging Face Trainer.

::

    python examples/hf_trainer.py

The reference's features are a column of the data set, so they are shuffled and batched with the samples;
`compute_loss` adds the penalty to the model's own loss.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from data import Tower, samples
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

import specalign.torch


class Columns(Dataset):  # type: ignore[type-arg]
    """Samples as dictionaries."""

    def __init__(self) -> None:
        """Hold the columns."""
        self._columns = dict(zip(("inputs", "labels", "reference"), samples(), strict=True))

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._columns["labels"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one sample."""
        return {name: column[index] for name, column in self._columns.items()}


class AlignedTrainer(Trainer):
    """A Trainer whose loss has the penalty in it."""

    def __init__(self, *args: Any, align: specalign.torch.SpecAlign, **kwargs: Any) -> None:
        """`align` is the penalty; the rest is the Trainer's."""
        super().__init__(*args, **kwargs)
        self.align = align
        self.history: list[float] = []

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any) -> Any:
        """Return the loss of one batch."""
        features, logits = model(inputs["inputs"])
        penalty = self.align(features, inputs["reference"])
        self.history.append(penalty.item() / self.align.weight)
        loss = nn.functional.cross_entropy(logits, inputs["labels"]) + penalty
        return (loss, logits) if return_outputs else loss


def main(epochs: int = 20) -> list[float]:
    """Train; return the penalty of every step."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_train_epochs=epochs, per_device_train_batch_size=128, learning_rate=3e-3,
            remove_unused_columns=False, report_to=[], save_strategy="no", disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        align = specalign.torch.SpecAlign(weight=2.0, objective="ky_fan", k=8)
        trainer = AlignedTrainer(Tower(), arguments, train_dataset=Columns(), align=align)
        trainer.train()
    print(f"penalty {trainer.history[0]:.4f} -> {trainer.history[-1]:.4f}")
    return trainer.history


if __name__ == "__main__":
    main()
