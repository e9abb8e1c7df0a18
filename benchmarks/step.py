"""A training step of both SupCAM stages: convolutions laid out channels last against contiguous. In: nothing. Out: seconds and the ratio.

`python benchmarks/step.py`: preset quick on the built-in set, one thread on a CPU (as runs have it) or the GPU if there is one; steps of the
two layouts in turn, medians of 20 pairs, so that a machine whose speed drifts does not decide."""

import itertools
import statistics
import time

import torch

from search.registry import load
from trainables.parts.loop import Fitting
from trainables.parts.procedure import Setting, config_from, config_values


def main() -> None:
    entry = load("supcam")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    config = config_from(entry.procedure.config, config_values(entry.procedure.config()) | dict(entry.study.presets["quick"].overrides))
    pack = entry.procedure.synthesize(config, images=400, seed=0)
    setting = Setting(pack, entry.procedure.parts(config, pack, 0), 0, device)
    print(torch.cuda.get_device_name() if device.type == "cuda" else "cpu, one thread")
    for stage in entry.procedure.stages:
        pair = []
        for layout in (torch.channels_last, torch.contiguous_format):
            task = stage.build(config, setting)
            task.to(memory_format=layout)
            task.train()
            pair.append((Fitting(task, setting), itertools.chain.from_iterable(map(task.batches, itertools.count()))))
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(23):
            for (fitting, batches), spent in zip(pair, times, strict=True):
                batch = next(batches)
                clock = time.perf_counter()
                fitting.step(batch, 0.01)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if number >= 3:
                    spent.append(time.perf_counter() - clock)
        last, plain = map(statistics.median, times)
        ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
        print(
            f"{stage.name}: channels last {1000 * last:.1f} ms, contiguous {1000 * plain:.1f} ms a step; contiguous / channels last = {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
