"""Marks a wheel that has the sidecar's program in it as one for its platform."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProgramHook(BuildHookInterface):  # type: ignore[type-arg]
    """Sets the wheel's tag from `SPECALIGN_WHEEL_PLATFORM`, which build_wheel.py gives; without it: any."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fill in the build data."""
        platform = os.environ.get("SPECALIGN_WHEEL_PLATFORM")
        if version == "standard" and platform:
            if not Path(self.root, "specalign/bin/specalign").is_file():
                raise FileNotFoundError("specalign/bin/specalign is missing; build the wheel with build_wheel.py")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform}"
