"""The anchor: a term that holds the features near what they were when the run began."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ._config import Anchor
from ._files import replace
from ._loader import Window

FILE = "initial.specalign"


class Anchored:
    """weight * mean(1 - cos(feature now, feature then)), with a frozen copy of the model for the features then."""

    def __init__(self, settings: Anchor, scale: float, model: Any, args: Any) -> None:
        """Copy the model as it is, or, in a resumed run, as it was when the first run began.

        Args:
            settings: weight and sides.
            scale: of the gradient beside the value's, as for `Loss`.
            model: OpenCLIP's, without wrappers.
            args: OpenCLIP's.

        Raises:
            InputError: the model cannot be copied, or a resumed run has not kept what it was.
        """
        if getattr(args, "fsdp", False):
            raise InputError("specalign: an anchor needs a copy of the model, which --fsdp has in pieces")
        from open_clip import get_input_dtype

        self.settings = settings
        self._scale = scale
        self._dtype = get_input_dtype(args.precision)
        frozen = copy.deepcopy(model).eval().requires_grad_(False)
        if args.resume:
            path = os.path.join(os.path.dirname(args.resume), FILE)
            try:
                frozen.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            except (OSError, RuntimeError, ValueError) as e:
                what = e.strerror if isinstance(e, OSError) and e.strerror else str(e).splitlines()[0]
                raise InputError(
                    f"specalign: the anchor needs the model as it was when the run began, from {path}: {what}"
                ) from None
        if args.save_logs:
            state = frozen.state_dict()
            replace(os.path.join(args.checkpoint_path, FILE), lambda file: torch.save(state, file))
        # In a list: what OpenCLIP does to the modules it can reach must not reach this one.
        self._model = [frozen]

    def loss(self, inputs: dict[str, Any], window: Window) -> Tensor:
        """Return the term for one call of the loss, whose arguments are `inputs`."""
        value = window.value
        total: Any = 0.0
        for side in self.settings.features:
            now = inputs[f"{side}_features"]
            if side not in value.keep:
                value.keep[side] = self._then(side, window, now.device)
            with torch.autocast(now.device.type, enabled=False):
                then = value.keep[side]
                total = total + (1 - torch.nn.functional.cosine_similarity(now.float(), then, dim=-1)).mean()
        term: Tensor = self.settings.weight * total
        return term if self._scale == 1 else self._scale * term + (1 - self._scale) * term.detach()

    def _then(self, side: str, window: Window, device: torch.device) -> Tensor:
        batches = window.images if side == "image" else window.texts
        encode = getattr(self._model[0], f"encode_{side}")
        with torch.no_grad():  # within OpenCLIP's autocast, as the student
            return torch.cat(
                [encode(b.to(device, dtype=self._dtype if b.is_floating_point() else None)).float() for b in batches]
            )
