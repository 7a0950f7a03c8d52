"""Small networks on images of 28 x 28, trained in seconds, whose hidden layers are embeddings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

Floats = npt.NDArray[np.float32]


def hidden_layer(
    images: Floats,
    labels: npt.NDArray[np.int64],
    wanted: Floats,
    *,
    epochs: int = 4,
    width: int = 64,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Train a convolutional network on labelled images and return its last hidden layer and its answers on the wanted ones.

    images, wanted: (n, 28, 28) from 0 to 1. The layer is (n, width), 0 or more.
    """
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * 7 * 7, width), nn.ReLU(),
    )  # fmt: skip
    head = nn.Linear(width, int(labels.max()) + 1)
    model = nn.Sequential(body, head)
    x, y = torch.from_numpy(images)[:, None], torch.from_numpy(labels)
    steps = epochs * (len(x) // 256)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for at in range(0, len(x) // 256 * 256, 256):
            part = order[at : at + 256]
            loss = nn.functional.cross_entropy(model(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    layers, answers = [], []
    with torch.inference_mode():
        for block in torch.from_numpy(wanted)[:, None].split(2048):
            layers.append(body(block))
            answers.append(head(layers[-1]).argmax(1))
    return torch.cat(layers).numpy(), torch.cat(answers).numpy()
