"""Runs the sidecar's program, `specalign`, that this package found."""

from __future__ import annotations

import os
import sys

from . import _binary
from ._errors import Error


def main() -> None:
    """Become the program; its arguments are ours."""
    try:
        program = _binary.find()
    except Error as e:
        sys.exit(str(e))
    os.execv(program, ["specalign", *sys.argv[1:]])


if __name__ == "__main__":
    main()
