"""Where a process of a run is: its machine, and the card that Ray gave it.
Comes in: a job. Goes out: facts that travel with the run's first row, so that a card's fault is that card's and not the machine's. Ray
cannot place by card: a process on one that its run is to be kept from hands the run back and holds the card, so that others get others."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import torch

from search.cluster import NODES_SECONDS, alive
from search.examine import PRETEND
from trainables.parts import code
from trainables.parts.errors import ClusterLost
from trainables.parts.execution import device_name

BESIDE = 1 << 30  # bytes of a device that neither are free nor this process's: a CUDA context alone takes half of that
HOLD_SECONDS = 2.0  # how often a process that holds a card asks whether it is still to


def origin(job: dict[str, Any]) -> dict[str, Any]:
    """Who trains, and where. Of a card that cannot be used nothing is known: see `unusable`."""
    usable = not unusable(job)
    return code.origin(device_name(device(job)) if usable else "") | {
        "node": ray.get_runtime_context().get_node_id() if ray.is_initialized() else "",
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        **_card(job, usable),
    }


def device(job: dict[str, Any]) -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if job["gpus"] and torch.cuda.is_available() else torch.device("cpu")


def unusable(job: dict[str, Any]) -> str:
    """Why the GPU that a run was promised cannot be used; '' where it can, or none was promised."""
    if not job["gpus"] or PRETEND in os.environ:
        return ""
    if not torch.cuda.is_available():
        return "PyTorch sees none there; look at its driver (nvidia-smi, and PyTorch's CUDA)"
    try:
        torch.cuda.mem_get_info()
    except RuntimeError as fault:  # broken; or filled to the last by its neighbours, which the run itself will say
        return "" if is_full(fault) else f"PyTorch cannot use it ({str(fault).splitlines()[0]}); nvidia-smi says whether it is sound"
    return ""


def is_full(fault: BaseException) -> bool:
    """Whether a device's memory was not enough, whoever says it: PyTorch, or CUDA and its libraries, which take some beside it."""
    return isinstance(fault, torch.cuda.OutOfMemoryError) or any(
        words in str(fault) for words in ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    )


def _card(job: dict[str, Any], usable: bool) -> dict[str, Any]:
    """The one that a run has to itself or shares. The workers of a group are placed by Ray Train: no card can be kept from them, and its
    faults are the machine's."""
    there = device(job) if usable else torch.device("cpu")
    found = {"device_memory": torch.cuda.get_device_properties(there).total_memory if there.type == "cuda" else 0}
    if not job["gpus"] or job.get("group") or not ray.is_initialized():
        return found
    context = ray.get_runtime_context()
    index = ",".join(context.get_accelerator_ids()["GPU"])
    own = f"GPU-{torch.cuda.get_device_properties(there).uuid}" if there.type == "cuda" else ""
    name = own or f"{context.get_node_id()[:12]}-{index}"  # one that PyTorch does not see cannot say who it is
    return found | {"card": name, "card_index": index}


def crowd(fault: BaseException) -> dict[str, Any]:
    """Of this process's device, where its memory was not enough: whether others use it, by what is neither free nor ours."""
    if not (is_full(fault) and torch.cuda.is_available()):
        return {}
    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError:  # not even for this question
        return {"device_memory": torch.cuda.get_device_properties(0).total_memory, "neighbours": True}
    return {"device_memory": total, "neighbours": total - free - torch.cuda.memory_reserved() > BESIDE}


def hold(job: dict[str, Any], card: str, send: Callable[[dict[str, Any]], None]) -> None:
    """Returns at once where the run may be on this card; else never: `send` raises once the card is free again, or nothing is left to
    run."""
    while card and card in job["cards"]:
        send({"holds": card})
        time.sleep(HOLD_SECONDS)


def placed_on(trial: Any) -> tuple[str, str]:
    """(node, its name) on which Ray had placed a trial of Tune's whose process died; '' where that is not known, and no name where that
    machine is gone. Tune keeps of such a process no more than Ray's words on its death, which name the actor; Ray's table of actors knows
    the node."""
    named = re.search(r"actor_id[:=] ?([0-9a-f]{32})", Path(trial.error_file).read_text())
    found: list[str] = []

    def ask(actor: str) -> None:
        with suppress(ray.exceptions.RayError, RuntimeError):  # a head that is gone: see `watch`
            found.append(ray._private.state.actors(actor).get("Address", {}).get("NodeID", ""))

    if named:
        asking = threading.Thread(target=ask, args=(named[1],), daemon=True)  # a head that hangs would hold the command
        asking.start()
        asking.join(NODES_SECONDS)
    try:
        names = {node["NodeID"]: str(node["NodeManagerHostname"]) for node in alive()}
    except ClusterLost:
        return "", ""
    return (found[0], names.get(found[0], "")) if found and found[0] else ("", "")
