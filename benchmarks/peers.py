"""Our step against the papers' way of making its images: PIL for each view of each sample, NumPy for composition, a DataLoader on all cores.
In: nothing. Out: seconds of both and the ratio. `python -m benchmarks peers [STEPS]`: supcam's preset quick, the same network, loss, optimiser and
batch in both; what differs is where views and composed images come from. Then, where lightly is installed, its MoCo v2 (transform, memory bank, loss,
moving average) against our arm MoCo on the same network. On a GPU where there is one, on all cores otherwise; blocks of steps in turn, medians; and seconds of
processor, those of the loader's processes among them."""

import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from search.registry import load
from search_spaces.supcam import MOCO
from trainables.parts import composition
from trainables.parts.loop import Fitting
from trainables.parts.machine import cpus
from trainables.parts.procedure import Setting, config_from, config_values
from trainables.supcam import Pretrain

Step = Callable[[], None]


def composed(primary: np.ndarray, candidate: np.ndarray, labels: tuple[int, int], table: composition.LookUpTable, limit: int, draws: int) -> tuple[np.ndarray, int]:  # fmt: skip
    """Algorithm 1 for one pair, as one writes it in NumPy."""

    def box(image: np.ndarray) -> tuple[int, int]:
        return tuple(int(np.ptp(np.nonzero(image.any(axis))[0])) + 1 for axis in (1, 0))

    def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
        side = len(image)
        out = np.zeros_like(image)
        out[max(down, 0) : side + min(down, 0), max(right, 0) : side + min(right, 0)] = image[
            max(-down, 0) : side - max(down, 0), max(-right, 0) : side - max(right, 0)
        ]
        return out

    boxes = box(primary), box(candidate)
    for _ in range(draws):
        first, second = (
            moved(image, *(np.random.randint(-r, r + 1) for r in ((min(len(image), sum(b)) - own) // 2 for b, own in zip(zip(*boxes, strict=True), size, strict=True))))
            for image, size in zip((primary, candidate), boxes, strict=True)
        )  # fmt: skip
        both = (first > 0) & (second > 0)
        label = table.label(*labels, overlapping=int(both.sum()) > limit)
        if label != composition.UNCERTAIN:
            return np.where(both, (first.astype(np.float32) + second) / 2, np.maximum(first, second)).astype(np.uint8), label
    return candidate, labels[1]


class Samples(Dataset):
    """x_q, x_k, x_g, label and label of x_g of one image."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, config: object) -> None:
        self.images, self.labels, self.table = images, labels, composition.load_tables()[config.composition]  # type: ignore[attr-defined]
        side = config.input_size  # type: ignore[attr-defined]
        self.limit = int(config.overlap_threshold * side**2 / 224**2)  # type: ignore[attr-defined]
        self.draws = config.composition_draws  # type: ignore[attr-defined]
        self.view = transforms.Compose([
            transforms.RandomResizedCrop(side, (config.crop_min, config.crop_max)), transforms.RandomHorizontalFlip(), transforms.ToTensor(),  # type: ignore[attr-defined]
            transforms.Normalize(0.449, 0.226),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor, Tensor, int, int]:
        other = np.random.randint(len(self))
        made, label = composed(
            self.images[place], self.images[other], (int(self.labels[place]), int(self.labels[other])), self.table, self.limit, self.draws
        )
        picture = Image.fromarray(self.images[place])
        return self.view(picture), self.view(picture), self.view(Image.fromarray(made)), int(self.labels[place]), label


class Theirs(Pretrain):
    """The same step on images that come made."""

    def loss(self, batch: tuple[Tensor, ...]) -> Tensor:  # type: ignore[override]
        first, second, third, labels, labels_g = (tensor.to(self.setting.device) for tensor in batch)
        query = self.setting.apply(self.query, first)
        with torch.no_grad():
            nobody = torch.full_like(labels, -1)  # whose keys they are is asked by no arm that is compared
            self.new_keys = [
                (self.setting.apply(self.key, second), labels, nobody), (self.setting.apply(self.key, third), labels_g, nobody)
            ]  # fmt: skip
        return self._loss(query, labels)


class Pictures(Dataset):
    """Two views of an image by a transform of PIL images."""

    def __init__(self, images: np.ndarray, transform: Callable[[Image.Image], list[Tensor]]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> list[Tensor]:
        return self.transform(Image.fromarray(self.images[place]))


def lightly_step(config: Any, task: Pretrain, images: np.ndarray, device: torch.device) -> Step:
    """MoCo v2 with lightly's transform, memory bank, loss and moving average, as its own example has it, on the networks of `task`."""
    from lightly.loss import NTXentLoss
    from lightly.models.utils import update_momentum
    from lightly.transforms.moco_transform import MoCoV2Transform

    transform = MoCoV2Transform(input_size=config.input_size, min_scale=config.crop_min, normalize={"mean": [0.449], "std": [0.226]})
    batches = every(loader_of(Pictures(images, transform), config))
    criterion = NTXentLoss(temperature=config.temperature, memory_bank_size=(config.queue_size, config.embedding_dim)).to(device)
    query, key = task.query, task.key
    optimizer = torch.optim.SGD(query.parameters(), lr=0.01, momentum=config.sgd_momentum, weight_decay=config.weight_decay)

    def step() -> None:
        update_momentum(query, key, m=config.ema_decay)
        first, second = (views.to(device) for views in next(batches))
        with torch.no_grad():
            keys = key(second)
        loss = criterion(query(first), keys)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def loader_of(samples: Dataset, config: Any) -> DataLoader:
    return DataLoader(samples, config.pretrain_batch, shuffle=True, drop_last=True, num_workers=cpus(), persistent_workers=True)


def every(loader: DataLoader) -> Iterator[Any]:
    return itertools.chain.from_iterable(itertools.repeat(loader))


def own_step(fitting: Fitting) -> Step:
    batches = itertools.chain.from_iterable(fitting.task.batches(epoch) for epoch in itertools.count())
    return lambda: fitting.step(next(batches), 0.01)  # type: ignore[func-returns-value]


def of_children() -> float:
    """Seconds of processor that the processes of the loaders took so far."""
    ticks = 0
    for child in active_children():
        ticks += sum(map(int, Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def compare(words: str, ours: Step, theirs: Step, steps: int, device: torch.device) -> None:
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    processor: dict[str, list[float]] = {"ours": [], "theirs": []}  # of this process
    for block in range(6):  # blocks, not single steps: the loader's processes would work on while the other has its turn
        for name, step in (("ours", ours), ("theirs", theirs)):
            clock, own = time.perf_counter(), time.process_time()
            for _ in range(steps):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if block:
                times[name].append((time.perf_counter() - clock) / steps)
                processor[name].append((time.process_time() - own) / steps)
    ours_ms, theirs_ms = (1000 * statistics.median(times[name]) for name in ("ours", "theirs"))
    ratio = statistics.median(b / a for a, b in zip(times["ours"], times["theirs"], strict=True))
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads and {cpus()} loader processes"
    print(f"{where}: ours {ours_ms:.1f} ms, {words} {theirs_ms:.1f} ms a step; theirs / ours = {ratio:.2f}", flush=True)
    made = 6 * steps + 2 * cpus()  # batches, with those that lie ready
    a, b = 1000 * statistics.median(processor["ours"]), 1000 * (statistics.median(processor["theirs"]) + of_children() / made)
    print(
        f"by processor, which other work does not change: ours {a:.1f} ms, theirs {b:.1f} ms a step; theirs / ours = {b / a:.2f}",
        flush=True,
    )


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    entry = load("supcam")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    values = config_values(entry.procedure.config()) | dict(entry.study.presets["quick"].overrides)
    config = config_from(entry.procedure.config, values)
    pack = entry.procedure.synthesize(config, images=1000, seed=0)
    parts = entry.procedure.parts(config, pack, 0)
    images, labels = np.asarray(pack.images[parts["train"]]), pack.labels[parts["train"]]

    def fitting(kind: type[Pretrain], config: Any, steady: bool | None = None) -> Fitting:
        setting = Setting(pack, parts, 0, device, steady=steady)
        return Fitting(kind(config, setting).train(), setting)

    theirs = fitting(Theirs, config, steady=False)
    batches = every(loader_of(Samples(images, labels, config), config))
    compare(
        "PIL, NumPy and a DataLoader", own_step(fitting(Pretrain, config)),
        lambda: theirs.step(next(batches), 0.01), steps, device,  # type: ignore[func-returns-value]
    )  # fmt: skip
    if not find_spec("lightly"):
        print("lightly is not installed here, so its MoCo is not compared: pip install lightly")
        return
    moco = config_from(entry.procedure.config, values | MOCO)
    ours, networks = fitting(Pretrain, moco), fitting(Pretrain, moco, steady=False).task
    compare("lightly's MoCo v2", own_step(ours), lightly_step(moco, networks, images, device), steps, device)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
