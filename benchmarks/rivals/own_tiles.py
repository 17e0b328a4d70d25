"""One prediction the way gopt-geo makes it; run by `against_terratorch.py`. Prints a line of JSON as its rival does."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("optical", "sar", "pack", "weights", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("tile", "overlap", "batch"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args()
    import torch

    from gopt_geo import api

    torch.set_num_threads(1)
    imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, processor = time.perf_counter(), time.process_time()
    api.predict(  # type: ignore[call-overload]
        given.optical,
        given.sar,
        [given.out],
        pack=given.pack,
        backbone_weights=given.weights,
        optical_units="reflectance",
        sar_units="db",
        tile_size=given.tile,
        overlap=given.overlap,
        batch_size=given.batch,
        device="cpu",
        precision="fp32",
        overwrite=True,
    )
    found = {
        "wall s": time.perf_counter() - wall,
        "processor s": time.process_time() - processor,
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "imports MiB": imports / 1024,
        "torch": torch.__version__,
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
