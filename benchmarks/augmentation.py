"""CCRL's training step with its views against the bare model's, at batch 1,024 of 32 x 32. In: nothing, or a backbone. Out: seconds and the ratio.

`python benchmarks/augmentation.py [BACKBONE] [BATCH]`: the published network on a GPU; on a CPU, one thread as runs have it, the quick preset's, which
a slow augmentation would starve sooner. Bare: the same steps with views that were made before. In turn, medians of 10 pairs; ratio 1 = free."""

import itertools
import statistics
import sys
import time
from dataclasses import replace

import numpy as np
import torch

from search.registry import load
from trainables.data.pack import make_pack
from trainables.parts.loop import Fitting
from trainables.parts.procedure import Setting


def main() -> None:
    procedure = load("ccrl").procedure
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    backbone = sys.argv[1] if len(sys.argv) > 1 else "cell_preact_resnet18" if device.type == "cuda" else "cell_preact_tiny"
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 1024
    config = replace(procedure.config(), backbone=backbone, pretrain_batch=size, queue_size=4 * size)
    cells = 4 * size
    pixels = np.random.default_rng(0).integers(0, 256, (cells, 32, 32, 3), dtype=np.uint8)
    pack = make_pack(pixels, np.arange(cells) % 4, ("a", "b", "c", "d"), [str(i) for i in range(cells)], None, np.ones((cells, 2)))
    setting = Setting(pack, {"train": np.arange(cells), "val": np.arange(8), "test": np.arange(8)}, 0, device)
    full, bare = (procedure.stages[0].build(config, setting).train() for _ in range(2))
    batches = itertools.chain.from_iterable(map(full.batches, itertools.count()))
    fixed = next(batches)
    held = full.train_cells.colour(fixed.chosen)
    views = {id(draw): full.see(held, draw) for draw in fixed.views}
    bare.train_cells.colour = lambda chosen: held
    bare.see = lambda cells, draw: views[id(draw)]
    fixed = replace(fixed, views=tuple(_Whole(draw) for draw in fixed.views))
    views = {id(whole): views[id(whole.draw)] for whole in fixed.views}

    def step(fitting: Fitting, batch: object) -> None:
        fitting.step(batch, 1e-3)
        if device.type == "cuda":
            torch.cuda.synchronize()

    now = time.perf_counter if device.type == "cuda" else time.process_time  # one thread: a busy machine does not decide
    times: tuple[list[float], list[float]] = ([], [])
    pair = (Fitting(full, setting), Fitting(bare, setting))
    for number in range(12):
        for fitting, spent in zip(pair, times, strict=True):
            clock = now()
            step(fitting, next(batches) if fitting is pair[0] else fixed)
            if number >= 2:
                spent.append(now() - clock)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu, one thread"
    with_views, without = map(statistics.median, times)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    print(
        f"{name}, {backbone}, batch {size}: with views {1000 * with_views:.1f} ms, bare {1000 * without:.1f} ms a step; ratio {ratio:.2f}"
    )


class _Whole:
    """A draw whose every slice is itself, so that its views can be known by it."""

    def __init__(self, draw: object) -> None:
        self.draw = draw

    def __getitem__(self, part: slice) -> "_Whole":
        return self


if __name__ == "__main__":
    main()
