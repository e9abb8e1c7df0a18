"""The same weights judged twice after each epoch: with batch normalisation's running averages, and with statistics taken anew. In: a
procedure, a set. Out: both scores by epoch, how far the first lies off on average, what the new statistics cost of an epoch.

`python benchmarks/validation.py [PROCEDURE ...] [--data FOLDER] [--preset NAME] [--set FIELD=VALUE ...]`: without a folder the built-in
set, of every procedure in turn. One thread, seed 0; the training is that of a run, which validates less often than after each epoch."""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search.registry import load, names
from trainables.parts.batch_norm import AT_THE_END, ON_THE_WAY, renew_statistics
from trainables.parts.execution import stages_of
from trainables.parts.loop import Fitting
from trainables.parts.procedure import Setting, config_from, config_values


def running(task: nn.Module) -> dict[str, Tensor]:
    """A copy of the buffers of batch normalisation."""
    return {
        f"{name}.{kind}": buffer.clone()
        for name, module in task.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for kind, buffer in module.named_buffers()
    }


def measure(procedure: str, folder: Path | None, preset: str, given: dict[str, Any], device: torch.device) -> None:
    entry = load(procedure)
    chosen = entry.study.presets[preset]
    config = config_from(entry.procedure.config, config_values(entry.procedure.config()) | dict(chosen.overrides) | given)
    if folder is None:
        pack = entry.procedure.synthesize(config, images=chosen.synthetic_images, seed=0)
    else:
        pack = entry.procedure.read(folder, config)
    parts = entry.procedure.parts(config, pack, 0)
    source = folder.name if folder else "built-in set"
    print(f"{procedure}, {preset}, {source}, {len(parts['train'])} training images, {len(parts['val'])} validation images", flush=True)
    previous = None
    for stage in stages_of(entry.procedure, config):
        setting = Setting(pack, parts, 0, device, previous=previous)
        fitting, shares, off = Fitting(stage.build(config, setting), setting), [], []
        for epoch in range(getattr(config, stage.epochs)):
            last = epoch + 1 == getattr(config, stage.epochs)
            took = fitting.epoch(epoch)["seconds"]
            fitting.task.eval()
            metric, before = next((name, value) for name, value in fitting.task.validate().items() if name.startswith("val_"))
            averages, clock = running(fitting.task), time.perf_counter()
            renew_statistics(fitting.task, len(parts["train"]), AT_THE_END if last else ON_THE_WAY)
            spent = time.perf_counter() - clock
            after = fitting.task.validate()[metric]
            if not last:
                fitting.task.load_state_dict(averages, strict=False)  # else the next ones would start from the new statistics
            shares.append(spent / took)
            off.append(abs(before - after))
            print(
                f"{stage.name} epoch {epoch + 1}: {metric} {100 * before:.2f} by running averages, {100 * after:.2f} anew; "
                f"epoch {took:.1f} s, statistics {spent:.2f} s",
                flush=True,
            )
        asked = sum(fitting.task.validate_at(epoch + 1) or epoch + 1 == len(shares) for epoch in range(len(shares)))
        share = statistics.median(shares)
        print(
            f"{stage.name}: off by {100 * statistics.mean(off):.2f} points on average, at most {100 * max(off):.2f}; "
            f"statistics / epoch = {share:.3f}, in a run that validates {asked} of {len(shares)} epochs {share * asked / len(shares):.3f}"
        )
        previous = fitting.task.result()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("procedure", nargs="*", choices=names(), default=names())
    options.add_argument("--data", type=Path)
    options.add_argument("--preset", default="quick")
    options.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE")
    asked = options.parse_args()
    given = {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in asked.set)}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    for procedure in asked.procedure:
        measure(procedure, asked.data, asked.preset, given, device)


if __name__ == "__main__":
    main()
