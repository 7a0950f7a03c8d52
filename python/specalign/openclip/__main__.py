"""Dispatches ``python -m specalign.openclip``."""

from __future__ import annotations

import sys


def main(argv: list[str]) -> int:
    """Run what the arguments ask for, and return the exit code: 0 done, 1 failed while running, 2 bad input."""
    if argv[:1] == ["features"]:
        from . import _features

        return _features.main(argv[1:])
    from . import _run

    return _run.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
