"""One prediction the way TerraTorch makes it; run by `against_terratorch.py` with a Python that has TerraTorch.

Its generic dataset reads the raster, its `tiled_inference` runs the network, its `save_prediction` writes the map.
Prints a line of JSON: seconds, and the most memory that the process ever held.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("project", "stack", "pack", "weights", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("tile", "overlap", "batch", "classes"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    sys.path.insert(0, str(given.project))  # the network alone is the project's: the same code in both processes
    import torch
    from terratorch.cli_tools import save_prediction
    from terratorch.datasets import GenericNonGeoSegmentationDataset
    from terratorch.tasks.tiled_inference import tiled_inference

    from gopt_geo.models.normalise import Normaliser
    from gopt_geo.packs import load_model, read_pack

    torch.set_num_threads(1)
    imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, processor = time.perf_counter(), time.process_time()
    pack = read_pack(given.pack)
    model, normalise = load_model(pack, weights=given.weights), Normaliser(pack.meta.modalities)

    def forward(tiles: torch.Tensor) -> torch.Tensor:
        return model(normalise({"optical": tiles[:, :-1], "sar": tiles[:, -1:]}))

    dataset = GenericNonGeoSegmentationDataset(
        given.stack.parent, given.classes, image_grep=given.stack.name, no_data_replace=0.0
    )
    dataset.segmentation_mask_files = []  # without labels it would read the image once more in their place
    sample = dataset[0]
    with torch.inference_mode():
        logits = tiled_inference(
            forward,
            sample["image"][None],
            crop=given.tile,
            stride=given.tile - given.overlap,
            delta=0,  # its default discards a border of each tile, and needs more overlap
            padding=False,
            average_patches=True,
            blend_overlaps=True,
            batch_size=given.batch,
        )
        classes = logits.argmax(dim=1)
    save_prediction(classes[0], sample["filename"], given.out.parent, output_file_name=given.out.stem)
    found = {
        "wall s": time.perf_counter() - wall,
        "processor s": time.process_time() - processor,
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "imports MiB": imports / 1024,
        "version": version("terratorch"),
        "torch": torch.__version__,
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
