"""CPU seconds and memory of the random walk over a photograph's edges, 256 steps with radius 5.

usage: python -m benchmarks.random_walk [--repeat 5] [--out benchmarks/out/random_walk.json]

Maps are those of photographs of 375 x 500 and 640 x 640 pixels at stride 4; CAMs and edges are random and smooth.
IRN's dense walk took 618 CPU seconds and 2.4 GB for one of 375 x 500.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.record import peak_mb, write_record
from tag2mask.refine.random_walk import edge_transition, random_walk

CASES = ((3, 94, 125), (3, 160, 160), (8, 160, 160))
"""Classes, height and width of the maps."""


def smooth(classes: int, height: int, width: int, seed: int) -> Tensor:
    """Return smooth random maps in [0, 1]."""
    coarse = torch.rand(1, classes, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1)


def seconds(work: Callable[[], object], repeat: int) -> float:
    """Return the least CPU seconds that ``work`` took."""
    taken = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return round(min(taken), 3)


def one_by_one(cam: Tensor, matrix: Tensor, steps: int = 256) -> Tensor:
    """Take every step of the walk, for comparison."""
    now = cam.flatten(1).T.double().contiguous()
    for _ in range(steps):
        now = matrix @ now
    return now.T.reshape(cam.shape)


def measure(classes: int, height: int, width: int, repeat: int) -> dict[str, object]:
    """Measure one size."""
    cam, edge = smooth(classes, height, width, 0), smooth(1, height, width, 1)[0] ** 3
    walk = seconds(lambda: random_walk(cam, edge_transition(edge)), repeat)
    peak, matrix = peak_mb(), edge_transition(edge)
    difference = (random_walk(cam, matrix) - one_by_one(cam, matrix)).abs().max().item()
    return {
        "map": [classes, height, width],
        "cpu_seconds": walk,
        "of_which_matrix": seconds(lambda: edge_transition(edge), repeat),
        "cpu_seconds_of_256_products": seconds(lambda: one_by_one(cam, matrix), repeat),
        "difference": difference,
        "peak_mb": peak,
    }


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/random_walk.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    before = peak_mb()
    figures = {
        "walks": [measure(*case, given.repeat) for case in CASES],
        "peak_mb_before": before,
    }
    print(write_record(given.out, figures))


if __name__ == "__main__":
    main()
