"""Runs ``specalign.openclip`` over several ranks on a CPU.

OpenCLIP 3.3.0 hands its device to DistributedDataParallel, which refuses a CPU there; on a CPU it takes none.
"""

from __future__ import annotations

import sys

import torch

from specalign.openclip.__main__ import main

wrapped = torch.nn.parallel.DistributedDataParallel


def without_devices(module, device_ids=None, **arguments):
    return wrapped(module, **arguments)


if __name__ == "__main__":
    torch.nn.parallel.DistributedDataParallel = without_devices
    sys.exit(main(sys.argv[1:]))
