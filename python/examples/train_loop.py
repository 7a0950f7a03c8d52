"""A plain PyTorch training loop with the penalty added.

One tower learns two coarse classes; the penalty keeps the eight fine groups apart that a frozen reference sees.

::

    python examples/train_loop.py
"""

from __future__ import annotations

import torch
from torch import nn

import specalign.torch


def main(steps: int = 200, weight: float = 2.0) -> list[tuple[float, float]]:
    """Train; return task loss and penalty of every step."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    centres = torch.randn(8, 32, generator=rng)  # eight fine groups
    fine = torch.randint(0, 8, (2048,), generator=rng)
    images = centres[fine] + 0.3 * torch.randn(2048, 32, generator=rng)
    labels = fine % 2  # all that the task asks for
    reference = centres[fine] @ torch.randn(32, 48, generator=rng) / 32**0.5  # sees the groups

    tower = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 16))
    head = nn.Linear(16, 2)
    optimizer = torch.optim.AdamW([*tower.parameters(), *head.parameters()], lr=3e-3)
    align = specalign.torch.SpecAlign(weight=weight, objective="ky_fan", k=8)

    history = []
    for step in range(steps):
        batch = torch.randint(0, 2048, (256,), generator=rng)
        features = nn.functional.normalize(tower(images[batch]), dim=-1)
        task_loss = nn.functional.cross_entropy(head(features), labels[batch])
        loss = task_loss + align(features, reference[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        r = align.last
        assert r is not None
        history.append((task_loss.item(), r.value))
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step:4d}  task loss {task_loss.item():.4f}  penalty {r.value:.4f}  {r.seconds * 1e3:.2f} ms")
    align.close()
    return history


if __name__ == "__main__":
    main()
