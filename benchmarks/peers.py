"""Our step against the papers' way of making its images: PIL for each view of each sample, NumPy for composition, a DataLoader on all cores.
In: nothing. Out: seconds of both and the ratio. `python -m benchmarks peers [STEPS]`: supcam's preset quick, the same network, loss, optimiser and
batch in both; what differs is where views and composed images come from. On a GPU there, on all cores otherwise; steps in turn, medians."""

import itertools
import statistics
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from search.registry import load
from trainables.parts import composition
from trainables.parts.loop import Fitting
from trainables.parts.machine import cpus
from trainables.parts.procedure import Setting, config_from, config_values
from trainables.supcam import Pretrain, PretrainBatch


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
            self.new_keys = [(self.setting.apply(self.key, second), labels), (self.setting.apply(self.key, third), labels_g)]
        return self._loss(query, labels)


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    entry = load("supcam")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = config_from(entry.procedure.config, config_values(entry.procedure.config()) | dict(entry.study.presets["quick"].overrides))
    pack = entry.procedure.synthesize(config, images=1000, seed=0)
    parts = entry.procedure.parts(config, pack, 0)
    setting = Setting(pack, parts, 0, device)
    theirs = Fitting(Theirs(config, Setting(pack, parts, 0, device, steady=False)).train(), Setting(pack, parts, 0, device, steady=False))
    ours = Fitting(Pretrain(config, setting).train(), setting)
    samples = Samples(np.asarray(pack.images[parts["train"]]), pack.labels[parts["train"]], config)
    loader = DataLoader(samples, config.pretrain_batch, shuffle=True, drop_last=True, num_workers=cpus(), persistent_workers=True)

    def own() -> Iterator[PretrainBatch]:
        for epoch in itertools.count():
            yield from ours.task.batches(epoch)

    streams = {"ours": (ours, own()), "theirs": (theirs, itertools.chain.from_iterable(itertools.repeat(loader)))}
    times: dict[str, list[float]] = {name: [] for name in streams}
    for block in range(6):  # blocks, not single steps: the loader's processes would work on while the other has its turn
        for name, (fitting, batches) in streams.items():
            clock = time.perf_counter()
            for _ in range(steps):
                fitting.step(next(batches), 0.01)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if block:
                times[name].append((time.perf_counter() - clock) / steps)
    ours_ms, theirs_ms = (1000 * statistics.median(times[name]) for name in ("ours", "theirs"))
    ratio = statistics.median(b / a for a, b in zip(times["ours"], times["theirs"], strict=True))
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads and {cpus()} loader processes"
    print(f"{name}: ours {ours_ms:.1f} ms, PIL, NumPy and a DataLoader {theirs_ms:.1f} ms a step; theirs / ours = {ratio:.2f}")


if __name__ == "__main__":
    main()
