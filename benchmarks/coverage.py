"""How often the intervals of a table hold the truth: python benchmarks/coverage.py [DRAWS]

Made studies of which the truth is known: images of patients of 5 to 60 images each are told right or wrong by a threshold on a sum of normal
effects (patient, image, patient x arm, seed, run), two arms, 3 to 10 seeds, 12 to 60 patients. Of each, the share of nominal 95 % intervals
of the difference of the two accuracies that hold the true one: by seeds and patients (`analysis.crossed`), and by seeds alone (what tables
had before), and the mean half width of both in points. Nominal 95 % should cover 93 to 97 %.

Then of one run's accuracy, as `evaluate` and a card of one seed have it: by patients (`crossed.share_interval`), by Student's interval of the
same jackknife, and with images taken for independent (Clopper and Pearson).

Last of nine arms without any true difference to a tenth: how often one of the nine simultaneous intervals excludes 0, 5 % nominally."""

from __future__ import annotations

import sys

import numpy as np
from scipy import stats

from analysis import crossed

KINDS = {  # standard deviations on the latent scale: of seeds by arm, of patient x arm
    "little of either": ((0.05, 0.05), 0.05),
    "seeds": ((0.3, 0.3), 0.05),
    "patients": ((0.05, 0.05), 0.5),
    "both": ((0.2, 0.2), 0.3),
    "one arm noisy": ((0.05, 0.4), 0.3),
}
RUN = 0.7  # of run x image


def truth(seeds: tuple[float, float], patients: float) -> float:
    """The difference of the two arms' accuracies over all seeds and patients."""
    one, two = (float(stats.norm.cdf(1 / np.sqrt(1 + 1 + patients**2 + seed**2 + RUN**2))) for seed in seeds)
    return one - two


def study(n: int, m: int, seeds: tuple[float, float], patients: float, rng: np.random.Generator) -> np.ndarray:
    """A made study's (n, m) pseudo-values of the difference, as a table takes them."""
    sizes = rng.integers(5, 60, m)
    case = np.repeat(np.arange(m), sizes)
    images = rng.normal(0, 1, m)[case] + rng.normal(0, 1, len(case))
    by_patient = [rng.normal(0, patients, m)[case] for _ in range(2)]
    table = []
    for _ in range(n):
        both = []
        for arm in range(2):
            right = 1 + images + by_patient[arm] + rng.normal(0, seeds[arm]) + rng.normal(0, RUN, len(case)) > 0
            probability = np.stack([~right, right], axis=1).astype(float)
            found = crossed.pseudo_values("accuracy", np.ones(len(case), np.int64), probability, case)
            both.append(found[1] if found else np.zeros(m))
        table.append(both[0] - both[1])
    return np.array(table)


def covered(n: int, m: int, seeds: tuple[float, float], patients: float, draws: int, rng: np.random.Generator) -> float:
    """Share of `draws` made studies whose interval holds the truth."""
    of = truth(seeds, patients)
    ends = [crossed.two_way(study(n, m, seeds, patients, rng)).interval() for _ in range(draws)]
    return float(np.mean([low <= of <= high for low, high in ends]))


def one_run(m: int, share: float, patients: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Three intervals of a made run's accuracy, of m patients. share: the true one; patients: their standard deviation, images' is 1."""
    case = np.repeat(np.arange(m), rng.integers(5, 60, m))
    middle = stats.norm.ppf(share) * np.sqrt(1 + patients**2)
    right = middle + rng.normal(0, patients, m)[case] + rng.normal(0, 1, len(case)) > 0
    found, alone = crossed.share_values(right, case), crossed.share_values(right, np.arange(len(case)))
    assert found is not None and alone is not None
    estimate = crossed.of_cases(100 * found[1])
    return [
        tuple(crossed.share_interval(estimate, len(case))),
        tuple(estimate.interval()),
        tuple(crossed.share_interval(crossed.of_cases(100 * alone[1], "images"), len(case))),
    ]


def of_one_run(draws: int) -> None:
    rng = np.random.default_rng(1)
    print(f"\n{draws} made runs a row\n\n| patients | true accuracy | patients differ by | by patients covers | Student's | images |")
    print("|---|---|---|---|---|---|")
    for m in (5, 12, 16, 30, 60):
        for share in (0.5, 0.85, 0.98):
            for patients in (0.1, 0.5, 1.0):
                ends = np.array([one_run(m, share, patients, rng) for _ in range(draws)])  # (draws, 3, 2)
                covers = ((ends[..., 0] <= 100 * share) & (100 * share <= ends[..., 1])).mean(0)
                print(f"| {m} | {100 * share:g} % | {patients:g} | {' | '.join(f'{100 * c:.1f} %' for c in covers)} |", flush=True)


def family(n: int, m: int, share: float, draws: int, rng: np.random.Generator, arms: int = 9) -> float:
    """Share of `draws` made tables, of n seeds and m patients, in which one of `arms` simultaneous intervals claims a difference that is not
    there. share: of the variance of a mean that the seeds make; of a patient x arm and a single value the variance is 1 each."""
    seeds = share / (1 - share) * n * (1 + 1 / n) / m  # since their mean's variance is (1 + 1 / n) / m and that of seeds is seeds / n
    wrong = 0
    for _ in range(draws):
        size = (arms + 1, n, m)
        made = rng.normal(size=size) + rng.normal(size=(arms + 1, 1, m)) + rng.normal(0, np.sqrt(seeds), (arms + 1, n, 1))
        ends = (crossed.two_way(one - made[0]).interval(arms) for one in made[1:])
        wrong += any(low > 0 or high < 0 for low, high in ends)
    return wrong / draws


def of_families(draws: int) -> None:
    rng = np.random.default_rng(2)
    print(
        f"\n{draws} made tables of 30 patients a row\n\n| seeds | of the variance by seeds | one of nine intervals wrong |\n|---|---|---|"
    )
    for n in (2, 3, 5):
        for share in (0.1, 0.5, 0.8, 0.9):
            print(f"| {n} | {100 * share:g} % | {100 * family(n, 30, share, draws, rng):.1f} % |", flush=True)


def main(draws: int) -> None:
    rng = np.random.default_rng(0)
    print(
        f"{draws} made studies a row\n\n| seeds | patients | what varies | seeds x patients covers | half width | seeds alone covers | half width |"
    )
    print("|---|---|---|---|---|---|---|")
    for n in (3, 5, 10):
        for m in (12, 30, 60):
            for name, (seeds, patients) in KINDS.items():
                of, rows = truth(seeds, patients), []
                for _ in range(draws):
                    table = study(n, m, seeds, patients, rng)
                    rows.append((crossed.two_way(table).interval(), crossed.of_seeds(table.mean(axis=1)).interval()))
                cells = []
                for which in (0, 1):
                    ends = np.array([row[which] for row in rows])
                    share = np.mean((ends[:, 0] <= of) & (of <= ends[:, 1]))
                    cells += [f"{100 * share:.1f} %", f"{100 * np.mean(ends[:, 1] - ends[:, 0]) / 2:.1f}"]
                print(f"| {n} | {m} | {name} | {' | '.join(cells)} |", flush=True)
    of_one_run(draws)
    of_families(draws)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
