"""Builds the wheel: the Python package with the sidecar's program in it, for glibc 2.28 or later.

::

    python python/build_wheel.py --out dist          # for this machine's architecture
    python python/build_wheel.py --arch aarch64      # cross-compiled

The C parts are compiled by Zig's C compiler (the package `ziglang`), which links against the symbols of an older
glibc than the machine's. auditwheel has the last word on the result.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "report/web/dist/report.js"
GLIBC = (2, 28)
GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


def run(command: list[str], cwd: Path, **environment: str) -> str:
    """Run a command; what it says goes to our stderr where it fails."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nbuild_wheel: `{' '.join(command)}` failed with exit code {done.returncode}")
    return done.stdout


def build_program(target: Path, arch: str, compiler: Path) -> list[Path]:
    """Build cmd/specalign and its library for an architecture, with cgo against the old glibc.

    `compiler` is a script to write. Returns what was built.
    """
    library = target.with_name("libspecalign.so")
    flags = f"-target {arch}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"
    # Warnings are errors with the compilers that the sources are linted with; this one has others.
    compiler.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ziglang cc {flags} "$@" -Wno-error\n')
    compiler.chmod(0o755)
    run(
        ["make", "-s", "build", "library", f"PROGRAM={target}", f"LIBRARY={library}"],
        ROOT,
        CGO_ENABLED="1",
        GOOS="linux",
        GOARCH=GO_ARCH[arch],
        CC=str(compiler),
    )
    target.chmod(0o755)
    if not REPORT.is_file():
        print("build_wheel: compare --report is not in it; `make bundle` first, with Node.js", file=sys.stderr)
    return [target, library]


def newest_glibc(program: Path) -> tuple[int, ...]:
    """Return the newest version of glibc whose symbols the program wants; (0,) for a static one."""
    versions = re.findall(rb"GLIBC_(\d+)\.(\d+)", program.read_bytes())
    return max(((int(a), int(b)) for a, b in versions), default=(0,))


def build(out: Path, arch: str) -> Path:
    """Build the wheel into `out`, in a copy of the package so that the source tree stays as it is."""
    tag = f"manylinux_{GLIBC[0]}_{GLIBC[1]}_{arch}"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="specalign-wheel-") as name:
        stage = Path(name)
        ignore = shutil.ignore_patterns("__pycache__", "bin")
        shutil.copytree(ROOT / "python/specalign", stage / "specalign", ignore=ignore)
        for file in ("pyproject.toml", "README.md", "hatch_build.py"):
            shutil.copy(ROOT / "python" / file, stage)
        shutil.copy(ROOT / "LICENSE", stage)
        program = stage / "specalign/bin/specalign"
        program.parent.mkdir()
        for made in build_program(program, arch, stage / "cc"):
            if newest_glibc(made) > GLIBC:
                sys.exit(f"build_wheel: {made.name} wants glibc {newest_glibc(made)}, the wheel promises {GLIBC}")
        run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(stage / "dist")],
            stage,
            SPECALIGN_WHEEL_PLATFORM=tag,
        )
        (built,) = (stage / "dist").glob("*.whl")
        check(built, tag)
        wheel = out / built.name
        shutil.copy(built, wheel)
    return wheel


def check(wheel: Path, tag: str) -> None:
    """Have auditwheel confirm the tag, and see that the program is in there and may be run."""
    said = run([sys.executable, "-m", "auditwheel", "show", str(wheel)], wheel.parent)
    granted = set(re.findall(r"manylinux_(\d+)_(\d+)_", said.replace("\n", " ")))
    if not granted or max((int(a), int(b)) for a, b in granted) > GLIBC:
        sys.exit(f"{said}\nbuild_wheel: auditwheel does not grant {tag}")
    with zipfile.ZipFile(wheel) as z:
        mode = z.getinfo("specalign/bin/specalign").external_attr >> 16
    if not mode & 0o111:
        sys.exit("build_wheel: the program in the wheel is not executable")


def main() -> None:
    """Build a wheel and say where it is."""
    parser = argparse.ArgumentParser(description="Build the wheel with the sidecar's program in it.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the wheel (default: dist)")
    parser.add_argument("--arch", choices=sorted(GO_ARCH), default=platform.machine(), help="default: this machine's")
    arguments = parser.parse_args()
    print(build(arguments.out.resolve(), arguments.arch))


if __name__ == "__main__":
    main()
