"""Dispatches ``python -m specalign.openclip``."""

from __future__ import annotations

import sys

from . import _loop


def main(argv: list[str]) -> int:
    """Run what the arguments ask for, and return the exit code: 0 done, 1 failed while running, 2 bad input."""
    try:
        if argv[:1] == ["features"]:
            from . import _features

            run, argv = _features.main, argv[1:]
        else:
            from . import _run

            run = _run.main
    except ModuleNotFoundError as e:
        print(_loop.absent(e), file=sys.stderr)
        return 2
    return run(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
