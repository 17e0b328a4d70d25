"""CPU time of ``gopt-geo --help``, absolute and against an empty Python; the budget is 0.3 s.

Run: python benchmarks/startup.py [--runs 15] [--output startup.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

BUDGET_S = 0.3
REPO = Path(__file__).parents[1]
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import typer": ["-c", "import typer"],
    "gopt-geo --help": ["-m", "gopt_geo_cli.main", "--help"],
    "gopt-geo --version": ["-m", "gopt_geo_cli.main", "--version"],
    "gopt-geo predict --help": ["-m", "gopt_geo_cli.main", "predict", "--help"],
}


def cpu_seconds(arguments: list[str]) -> float:
    """User and system time of one child process, threads and all."""
    # A user's Python keeps its compiled modules; where this one is told not to, compiling would be measured.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join([str(REPO), str(REPO / "cli")])
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=kept | {"PYTHONPATH": path})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--output", type=Path, default=Path("startup.json"))
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(
        options.runs + 1
    ):  # interleaved, so that a busy spell hits all alike; the first turn warms caches
        for name, arguments in COMMANDS.items():
            seconds = cpu_seconds(arguments)
            if turn:
                times[name].append(seconds)
    base = statistics.median(times["python -c pass"])
    result = {
        name: {"median_s": statistics.median(runs), "max_s": max(runs), "ratio": statistics.median(runs) / base}
        for name, runs in times.items()
    }
    for name, row in result.items():
        sys.stdout.write(f"{name:26} {row['median_s']:.3f} s (max {row['max_s']:.3f})  {row['ratio']:5.1f} x\n")
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if result["gopt-geo --help"]["median_s"] > BUDGET_S:
        raise SystemExit(f"gopt-geo --help is over its budget of {BUDGET_S} s")


if __name__ == "__main__":
    main()
