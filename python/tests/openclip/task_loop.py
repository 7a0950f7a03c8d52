"""A miniature of the call shapes of OpenCLIP's 4.x development line: not that loop, but what an attachment meets there.

A state with a task that holds model and loss; batches that are dictionaries; a total over the keys that end in
``_loss``; and every rank all-reducing every key for the log, so that one which lacks a key stops all the others.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


class Task(torch.nn.Module):
    """Model and loss of images and texts."""

    data_keys = ("image", "text")

    def __init__(self, model, loss):
        super().__init__()
        self.trainable_module = model
        self.loss = loss

    def forward(self, batch):
        losses = self.loss(**self.trainable_module(image=batch["image"], text=batch["text"]), output_dict=True)
        return {**losses, "loss": sum(v for k, v in losses.items() if k.endswith("_loss"))}

    def accumulated(self, features, rest):
        losses = self.loss(**features, **rest, output_dict=True)
        return {**losses, "loss": sum(v for k, v in losses.items() if k.endswith("_loss"))}


@dataclass
class State:
    task: Task
    optimizer: Any
    epoch: int = 0
    scaler: Any = None


def train_one_epoch(state, data, args, tb_writer=None):
    task, optimizer = state.task, state.optimizer
    task.train()
    held = []
    for batch in data["train"].dataloader:
        assert set(batch) == {"image", "text"}, "a field that the model does not know"
        held.append(batch)
        if len(held) < args.accum_freq:
            continue
        optimizer.zero_grad()
        if args.accum_freq == 1:
            losses = task(batch)
            losses["loss"].backward()
        else:
            with torch.no_grad():
                cached = [task.trainable_module(**b) for b in held]
            for j, one in enumerate(held):
                last = j + 1 == len(held)
                synced = last or not hasattr(task.trainable_module, "no_sync")
                with nullcontext() if synced else task.trainable_module.no_sync():
                    now = task.trainable_module(**one)
                    rest = {"logit_scale": now["logit_scale"]}
                    features = {
                        k: torch.cat([now[k] if i == j else c[k] for i, c in enumerate(cached)])
                        for k in ("image_features", "text_features")
                    }
                    losses = task.accumulated(features, rest)
                    losses["loss"].backward()
        optimizer.step()
        held = []
        if args.distributed:
            for value in losses.values():
                dist.all_reduce(value.detach().clone())
