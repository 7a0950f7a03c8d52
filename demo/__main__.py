"""``python -m demo``: prepare, train, evaluate, show."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from .console import Console, DemoError

ROOT = Path(__file__).resolve().parent.parent


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description=(
            "Train a small CLIP on coarse captions with OpenCLIP's own program: without the penalty, with the "
            "paper's, and with ours; then show what held-out images say. About five minutes on two cores."
        ),
        epilog="example: python -m demo --seeds 3 --control",
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="train everything from N seeds (default 1)")
    parser.add_argument(
        "--control", action="store_true", help="also train with the reference's rows handed to the wrong images"
    )
    parser.add_argument(
        "--penalty", type=Path, action="append", default=[], metavar="FILE.yaml",
        help="also train with these settings of the penalty (as for python -m specalign.openclip); repeatable",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=ROOT / "demo-out", metavar="DIR", help="default: demo-out")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / ".cache" / "demo", metavar="DIR", help="default: .cache/demo"
    )
    parser.add_argument("--fresh", action="store_true", help="train again what was trained before")
    parsed = parser.parse_args(argv)
    if not 1 <= parsed.seeds <= 100:
        parser.error(f"--seeds {parsed.seeds}: from 1 to 100")
    return parsed


def main() -> int:
    """Run the demonstration. Returns the exit code: 0 done, 1 failed, 130 interrupted."""
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like an interrupt: with everything tidied up
    console = Console()
    try:
        from . import study  # torch takes seconds to load: not for --help

        study.run(options, ROOT, console)
    except DemoError as error:
        console.line(f"demo: {error}")
        return 1
    except ModuleNotFoundError as error:
        console.line(f"demo: {error.name} is not installed in {sys.prefix}; `make demo` installs what is needed")
        return 1
    except KeyboardInterrupt:
        console.line("demo: interrupted; what was finished is kept, run it again to go on")
        return 130
    return 0


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched from a hub: everything comes from packages
    sys.exit(main())
