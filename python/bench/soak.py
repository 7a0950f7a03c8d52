"""Very many steps over eight sessions: memory, descriptors and latency must stay as they were.

    python python/bench/soak.py --record build/soak.csv --plot build/soak.png

A round takes small steps (16 rows of 16 and 24) and then large ones (512 rows of 512 and 768), with all sessions at
once; and after every hundredth of either a few one behind the other, whose latency is recorded. Before the first round
and after every one a new session takes the same two steps: values, eigenvalues and gradients must be the same to the
bit. Other programs may run beside it, and all of it may be frozen for minutes: latencies are medians over many windows,
and what must stay is the processor time of a step in the windows that were disturbed least. `--attach FILE` takes a
running daemon in place of a sidecar of its own; records of several runs against the same daemon are one. Exit code 1:
something did not stay.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import specalign

SESSIONS = 8
ALONE = 20  # steps of a window, or a fifth of it, that are taken one behind the other
FROZEN = 600.0  # seconds that a step may take, if everything stood still meanwhile
COLUMNS = ["round", "kind", "steps", "ms_a_step", "ms_alone", "engine_ms", "sidecar_cpu_ms", "trainer_cpu_ms"]
COLUMNS += ["sidecar_rss_mib", "sidecar_fds", "trainer_rss_mib", "trainer_fds", "cold"]


def process(pid: int) -> tuple[float, int]:
    """Return the resident memory in MiB and the open descriptors of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir(f"/proc/{pid}/fd"))


def processor(pid: int) -> float:
    """Return the processor time in seconds that a process has used, of all its threads."""
    return time.clock_gettime(~pid << 3 | 2)  # CLOCK_PROCESS_CPUTIME_ID of another process, as clock_getcpuclockid(3)


def batches(n: int, d1: int, d2: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return a few batches (n, d1) and (n, d2) that share groups."""
    rng = np.random.default_rng(n)
    out = []
    for _ in range(4):
        groups = rng.integers(0, 8, n)
        pair = [rng.standard_normal((8, d))[groups] + rng.standard_normal((n, d)) for d in (d1, d2)]
        out.append((pair[0].astype(np.float32), pair[1].astype(np.float32)))
    return out


class Soak:
    """A run against one sidecar."""

    def __init__(self, sidecar: specalign.Sidecar, record: Path) -> None:
        self.sidecar, self.path = sidecar, record
        self.small, self.large = batches(16, 16, 24), batches(512, 512, 768)
        self.threads = ThreadPoolExecutor(SESSIONS)
        self.rows: list[dict[str, str]] = []
        if record.exists():
            with open(record, newline="") as f:
                self.rows = list(csv.DictReader(f))
        else:
            record.parent.mkdir(parents=True, exist_ok=True)
            self.append([0, "cold", *[0] * 6], self.cold())

    def append(self, figures: list[object], cold: str = "") -> None:
        """Write a row."""
        ours, theirs = process(os.getpid()), process(self.sidecar.pid)
        values = [*figures, f"{theirs[0]:.2f}", theirs[1], f"{ours[0]:.2f}", ours[1], cold]
        self.rows.append({k: str(v) for k, v in zip(COLUMNS, values, strict=True)})
        new = not self.path.exists()
        with open(self.path, "a", newline="") as f:
            w = csv.DictWriter(f, COLUMNS)
            if new:
                w.writeheader()
            w.writerow(self.rows[-1])

    def cold(self) -> str:
        """Return a digest of everything that a new session answers to the same two steps."""
        digest = hashlib.sha256()
        for batch in (self.small[0], self.large[0]):
            with self.sidecar.session(k=8, threads=2) as session:
                r = session.step(*batch)
                digest.update(np.float64(r.value).tobytes() + r.eigenvalues.tobytes() + r.grad.tobytes())
        return digest.hexdigest()[:16]

    def round(self, small: int, large: int) -> None:
        """Take that many steps."""
        number = 1 + max(int(r["round"]) for r in self.rows)
        sessions = [self.sidecar.session(k=8, threads=2) for _ in range(SESSIONS)]
        for batch in (self.small[0], self.large[0]):  # all memory and connections that they will need
            for future in [session.submit(*batch) for session in sessions * 4]:
                future.result()
        for kind, total, batches in (("small", small, self.small), ("large", large, self.large)):
            window = max(5 * SESSIONS, total // 100)
            for begin in range(0, total, window):
                self.window(number, kind, sessions, min(window, total - begin), batches)
        for session in sessions:
            session.close()
        self.append([number, "cold", *[0] * 6], self.cold())

    def window(self, number: int, kind: str, sessions: list[specalign.Session], count: int, batches: list) -> None:
        """Take that many steps, the last ones alone, and write what they took."""
        pids = (self.sidecar.pid, os.getpid())
        start, used = time.perf_counter(), [processor(pid) for pid in pids]
        share = (count - min(ALONE, count // 5)) // SESSIONS

        def work(session: specalign.Session) -> list[float]:
            return [session.step(*batches[i % 4]).seconds for i in range(share)]

        engine = [seconds for part in self.threads.map(work, sessions) for seconds in part]
        together = (time.perf_counter() - start) / len(engine)
        times = []
        for i in range(count - len(engine)):
            start = time.perf_counter()
            engine.append(sessions[i % SESSIONS].step(*batches[i % 4]).seconds)
            times.append(time.perf_counter() - start)
        if self.sidecar.pid != pids[0]:
            sys.exit("soak: the sidecar was replaced")
        cpu = [(processor(pid) - before) / count for pid, before in zip(pids, used, strict=True)]
        figures = (together, float(np.median(times)), float(np.median(engine)), *cpu)
        self.append([number, kind, count, *(f"{1e3 * v:.4f}" for v in figures)])

    def within(self, kind: str, column: str) -> list[tuple[float, float]]:
        """Return the medians of the first and of the last quarter of every round: what steps do to a column.

        From round to round, with new sessions, memory that the C library keeps for itself comes and goes.
        """
        out = []
        for number in sorted({r["round"] for r in self.rows if r["kind"] == kind}):
            values = [float(r[column]) for r in self.rows if (r["round"], r["kind"]) == (number, kind)]
            quarter = max(1, len(values) // 4)
            out.append((float(np.median(values[:quarter])), float(np.median(values[-quarter:]))))
        return out

    def verdict(self) -> bool:
        """Print the first quarter's medians beside the last one's. Tells whether all that must stay stayed."""
        good = True
        digests = {r["cold"] for r in self.rows if r["cold"]}
        print(
            f"cold steps: {sum(1 for r in self.rows if r['cold'])} times, {len(digests)} digest(s): {sorted(digests)}"
        )
        for kind in ("small", "large"):
            rows = [r for r in self.rows if r["kind"] == kind]
            if not rows:
                continue
            quarter = max(1, len(rows) // 4)
            first, last = rows[:quarter], rows[-quarter:]
            print(f"{kind}: {sum(int(r['steps']) for r in rows)} steps")
            for column in COLUMNS[3:-1]:
                (a, low_a), (b, low_b) = (
                    np.percentile([float(r[column]) for r in part], (50, 10)) for part in (first, last)
                )
                print(f"  {column:16} first quarter {a:9.3f}   last quarter {b:9.3f}", end="")
                print(f"   least tenth {low_a:9.3f} {low_b:9.3f}" if "ms" in column else "")
                grew = {
                    "rss_mib": any(b > 1.05 * a + 4 for a, b in self.within(kind, column)),
                    "_fds": b > a + 2,
                    "cpu_ms": low_b > 1.1 * low_a,
                }
                stayed = not any(v for k, v in grew.items() if column.endswith(k))
                if not stayed:
                    print(f"  {column} did not stay")
                good &= stayed
        return good and len(digests) == 1

    def plot(self, path: Path) -> None:
        """Draw the record."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(3, 2, figsize=(11, 8), sharex="col")
        for side, kind, unit in ((0, "small", 1e3), (1, "large", 1)):
            rows = [r for r in self.rows if r["kind"] == kind]
            x = np.cumsum([int(r["steps"]) for r in rows]) / unit
            top, middle, bottom = axes[:, side]
            label = {"small": "n = 16", "large": "n = 512"}[kind]
            top.set_title(f"{sum(int(r['steps']) for r in rows):,} steps, {label}", fontsize=10)
            for column, name in (
                ("ms_a_step", "a step, of 8 sessions at once"),
                ("ms_alone", "a step alone"),
                ("engine_ms", "engine"),
                ("sidecar_cpu_ms", "processor time, sidecar"),
            ):
                top.plot(x, [float(r[column]) for r in rows], lw=0.7, label=name)
            top.set_yscale("log")
            for who in ("sidecar", "trainer"):
                middle.plot(x, [float(r[who + "_rss_mib"]) for r in rows], lw=0.9, label=who)
                bottom.plot(x, [int(r[who + "_fds"]) for r in rows], lw=0.9, label=who)
            names = ("milliseconds", "resident memory, MiB", "open descriptors")
            for ax, name in zip((top, middle, bottom), names, strict=True):
                if ax is not top:
                    ax.set_ylim(bottom=0)
                ax.set_ylabel(name)
                ax.legend(fontsize=8)
            bottom.set_xlabel("thousand steps" if unit > 1 else "steps")
        figure.tight_layout()
        figure.savefig(path, dpi=75)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attach", help="the attach file of a daemon to use")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--small", type=int, default=250_000, help="small steps a round")
    parser.add_argument("--large", type=int, default=2_500, help="large steps a round")
    parser.add_argument("--record", type=Path, default=Path("build/soak.csv"))
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    with (
        specalign.Sidecar.attach(args.attach, timeout=FROZEN)
        if args.attach
        else specalign.Sidecar(device="cpu", timeout=FROZEN)
    ) as sidecar:
        soak = Soak(sidecar, args.record)
        for _ in range(args.rounds):
            soak.round(args.small, args.large)
    good = soak.verdict()
    if args.plot:
        soak.plot(args.plot)
    print("soak: all stayed as it was" if good else "soak: something did not stay")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
