"""A frozen reference model for the tests: the mean colour of each of 16 blocks."""

from __future__ import annotations

import os
import time

import torch
from torchvision import transforms


class Blocks(torch.nn.Module):
    fingerprint = "blocks-1"

    def forward(self, pixels):
        return torch.nn.functional.avg_pool2d(pixels, pixels.shape[-1] // 4).flatten(1)


def blocks():
    normalise = transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Blocks().eval(), transforms.Compose(
        [transforms.Resize(32), transforms.CenterCrop(32), lambda image: image.convert("RGB"), transforms.ToTensor(),
         normalise]
    )  # fmt: skip


def other():
    model, preprocess = blocks()
    model.fingerprint = "blocks-2"
    return model, preprocess


class Slow(Blocks):
    def forward(self, pixels):
        with open(os.environ["SPECALIGN_TEST_BATCHES"], "a") as file:
            file.write("batch\n")
        time.sleep(0.4)
        return super().forward(pixels)


def slow():
    """`blocks`, which notes its batches in a file and takes its time."""
    return Slow().eval(), blocks()[1]
