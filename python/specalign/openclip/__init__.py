"""OpenCLIP's own training command with the penalty added.

::

    python -m specalign.openclip features --model timm:vit_small_patch14_dinov2.lvd142m --csv train.csv --output store
    python -m specalign.openclip --config align.yaml -- <open_clip_train arguments>

The first line computes a frozen reference model's features of the training images, once; the second one trains as
``python -m open_clip_train.main`` would, and adds the penalty between the student's image features and the
reference's to each batch's loss. ``python -m specalign.openclip --help`` has the settings.
"""

from __future__ import annotations

from ._ids import sample_id, sample_ids
from ._store import Store, StoreError

__all__ = ["Store", "StoreError", "sample_id", "sample_ids"]
