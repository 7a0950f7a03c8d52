"""What the server of `processes` imports once, for all the processes that it forks."""

import importlib

for module in (
    "open_clip_train.main",
    "torch.distributed",
    "torch.utils.tensorboard",
    "specalign.openclip._attach",
    "specalign.openclip._features",
    "specalign.openclip._live",
    "specalign.openclip._train",
    "specalign.torch",
):
    importlib.import_module(module)
