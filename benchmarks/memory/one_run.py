"""One prediction, or the loading of its model alone, and its memory; run by `inference_memory.py`. Prints JSON."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path

INTERVAL = 0.02  # seconds between two looks


def memory(key: str) -> float:
    """Return a line of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


class Sampler(threading.Thread):
    """Looks again and again at what the process itself holds (memory that no file backs), by stage of the run."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stage = "opening"
        self.peaks: dict[str, float] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        """Look until `end` is called."""
        while not self._ended.wait(INTERVAL):
            self.peaks[self.stage] = max(self.peaks.get(self.stage, 0.0), memory("RssAnon"))

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()
        self.join()


def load(given: argparse.Namespace) -> dict[str, float]:
    """Load all that predicting imports, and the model; what the process holds then."""
    from gopt_geo import api
    from gopt_geo.inference.packmodel import PackModel
    from gopt_geo.packs import load_model, read_pack

    assert api.predict
    pack = read_pack(given.pack)
    model = PackModel(load_model(pack, weights=given.weights), pack.meta, given.tile)
    assert model.num_classes
    return {"held MiB": memory("VmRSS"), "own MiB": memory("RssAnon")}


def predict(given: argparse.Namespace) -> dict[str, float]:
    """Predict as the command line does; the peaks."""
    from gopt_geo import api
    from gopt_geo.mapping import Progress

    sampler = Sampler()

    def progress(state: Progress) -> None:
        sampler.stage = "mapping" if state.done < state.total else "finishing"

    sampler.start()
    begin = time.perf_counter()
    report = api.predict(  # type: ignore[call-overload]
        given.optical,
        given.sar,
        [given.out],
        pack=given.pack,
        backbone_weights=given.weights,
        tile_size=given.tile,
        overlap=given.overlap,
        batch_size=1,
        threads=1,
        device="cpu",
        precision="fp32",
        optical_units="reflectance",
        sar_units="db",
        progress=progress,
        overwrite=True,
    )
    seconds = time.perf_counter() - begin
    sampler.end()
    stages = {f"own MiB, {stage}": peak for stage, peak in sampler.peaks.items()}
    tiles = {"tiles": report.run.tiles, "forwarded": report.run.forwarded}
    return {"peak MiB": memory("VmHWM"), "own MiB": max(sampler.peaks.values()), **stages, **tiles, "wall s": seconds}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["load", "predict"])
    for name in ("optical", "sar", "out", "weights"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--pack", type=Path, required=True)
    for name in ("tile", "overlap"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args()
    found = load(given) if given.what == "load" else predict(given)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
