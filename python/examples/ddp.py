"""Plain PyTorch under DistributedDataParallel, with the penalty of the whole batch.

::

    torchrun --nproc-per-node 2 examples/ddp.py

Features and reference rows are gathered with their gradient, and every rank computes the same penalty in a sidecar of
its own. The gathering's backward pass adds up what the ranks send back, and DistributedDataParallel takes their mean:
what is left is the gradient of one process on the whole batch. Without the gathering each rank has the penalty of its
own rows, which costs no communication. (The OpenCLIP attachment gathers to one sidecar instead.)
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from data import Tower, samples
from torch import nn
from torch.distributed.nn.functional import all_gather

import specalign.torch


def main(steps: int = 100, weight: float = 2.0, batch: int = 128) -> tuple[nn.Module, list[float]]:
    """Train; return the model and the penalty of every step."""
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    inputs, labels, reference = (t.to(device) for t in samples())
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(Tower().to(device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    align = specalign.torch.SpecAlign(weight=weight, objective="ky_fan", k=8)
    history = []
    for step in range(steps):
        rows = (torch.arange(batch) + step * batch) % len(inputs)
        mine = rows.chunk(size)[rank].to(device)
        features, logits = model(inputs[mine])
        penalty = align(torch.cat(all_gather(features)), torch.cat(all_gather(reference[mine])))
        loss = nn.functional.cross_entropy(logits, labels[mine]) + penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(penalty.item() / weight)
        if rank == 0 and step % 20 == 0:
            print(f"step {step:3d}  loss {loss.item():.4f}  penalty {history[-1]:.4f}")
    align.close()
    dist.destroy_process_group()
    return model.module, history


if __name__ == "__main__":
    main()
