"""Whether a contrast learns what it is meant to: how queries find their own keys, and what else gives them away.
Comes in: each step's queries, keys and queue, still on the device. Goes out: means over an epoch, for its row. Exists because a loss that
falls says little: keys that are told by their age, or that all look alike, have one too."""

import torch
from torch import Tensor, nn

from trainables.parts.workers import Workers

LAST = 10  # steps whose queries the rank is of: over an epoch the encoder moves, and directions that it has left would count


class Health(nn.Module):
    """Sums over the steps of an epoch, in buffers that stay where they are and are in no checkpoint: a step asks the device nothing.

    `add` within a step; `read` at an epoch's end, which begins anew."""

    sums: Tensor
    moment: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(7), persistent=False)
        self.register_buffer("moment", torch.zeros(dim, dim), persistent=False)  # of the last steps' queries, about 0

    @torch.no_grad()
    def add(self, query: Tensor, keys: Tensor, first: int, in_queue: Tensor | None = None, present: Tensor | None = None) -> None:
        """query: (N, D) of unit length; keys: (B, D) of the global batch, of which those from `first` on are the queries' own. With a queue
        in_queue: (N, K) cosines with its keys as they were before this step; present: (K,) bool."""
        place = torch.arange(first, first + len(query), device=query.device)[:, None]
        cosines = query @ keys.T
        own = cosines.gather(1, place)[:, 0]
        others = cosines.masked_fill(place == torch.arange(len(keys), device=query.device), -2.0)  # below each cosine
        to_others = (cosines.sum(1) - own).mean() / max(1, len(keys) - 1)
        told = [torch.ones_like(to_others), own.mean(), to_others, (own > others.amax(1)).to(own.dtype).mean()]
        if in_queue is not None and present is not None:
            keys_there = present.sum()
            there = (keys_there > 0).to(own.dtype)  # before the first keys have entered there is nothing to be told from
            to_queue = (in_queue * present).sum() / (len(query) * keys_there.clamp_min(1))
            found = (own > in_queue.masked_fill(~present, -2.0).amax(1)).to(own.dtype).mean()
            told += [there, there * to_queue, there * found]
        else:
            told += [torch.zeros_like(to_others)] * 3
        self.sums += torch.stack(told).to(self.sums.dtype)
        self.moment.lerp_((query.T @ query).to(self.moment.dtype), 1 / LAST)

    def read(self, workers: Workers) -> dict[str, float]:
        """Means over the steps since the last reading, and over the workers; empty where there was none.

        pretext_own, pretext_step, pretext_queue: mean cosine of a query with its own key, with the other keys of its step, with the
        queue's; pretext_step_top1, pretext_queue_top1: share of queries nearer to their own key than to each of those;
        pretext_rank: effective rank of the queries of the last steps (RankMe, Garrido et al. 2023): 1 where all are alike."""
        sums, moment = workers.mean(self.sums).cpu().tolist(), workers.mean(self.moment).double().cpu()
        self.sums.zero_()
        self.moment.zero_()
        steps, own, step, step_found, with_queue, queue, queue_found = sums
        if not steps:
            return {}
        row = {"pretext_own": own / steps, "pretext_step": step / steps, "pretext_step_top1": step_found / steps}
        if with_queue:
            row |= {"pretext_queue": queue / with_queue, "pretext_queue_top1": queue_found / with_queue}
        return row | {"pretext_rank": effective_rank(moment)}


def effective_rank(moment: Tensor) -> float:
    """e to the entropy of the singular values of rows (N, D), scaled to sum 1. moment: (D, D) float64, their X^T X times any number."""
    values = torch.linalg.eigvalsh(moment).clamp_min(0).sqrt()
    share = values / values.sum()
    return float(torch.special.entr(share).sum().exp())
