"""Many files at once, on the CPUs that this process may use.
Comes in: a function and items. Goes out: its results in order, as they come. Exists so that all reading is done in one way: threads, each
with one BLAS thread (3,000 images: 19.4 s with a BLAS thread for each core in each reader, 3.3 s so), and one filter for Pillow's warnings.

Reading a small image is many short calls, between which Python's lock is held: threads keep two cores busy and no more. Many images on
many cores are read by processes. They are new interpreters, not forks of one in which threads of torch and Ray run, and they do not run the
user's script again (loky, which comes with joblib, and this with scikit-learn)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from trainables.data import open as opening
from trainables.parts.machine import cpus

CORES = 4  # fewer are kept busy by threads
MANY = 1000  # items: reading fewer takes less than starting processes, 0.7 s of a core for each
THREADS, PROCESSES = 8, 16  # at most: each may hold an image of `opening.AT_ONCE` pixels
CHUNK = 16  # items that a process takes at once, some 50 ms
DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

Item, Result = TypeVar("Item"), TypeVar("Result")


def each(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """work(item) of each item. work: a function of a module, or a `partial` of one, which returns all that it found: another process may
    have called it."""
    left = list(items)
    if cpus() >= CORES and len(left) >= MANY:
        done = 0
        try:
            for result in _by_processes(work, left):
                yield result
                done += 1
        except _NoProcessesError as fault:
            print(f"reading goes on without processes of its own, which takes longer: {fault}", file=sys.stderr)
        left = left[done:]
    yield from _by_threads(work, left)


class _NoProcessesError(RuntimeError):
    """The machine gives no processes, or has ended one."""


def _by_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    with warnings.catch_warnings(), threadpool_limits(1, "blas"):
        warnings.simplefilter("ignore")  # Pillow warns about metadata, which is not used
        with ThreadPoolExecutor(min(THREADS, cpus())) as pool:
            yield from pool.map(work, items)


def _by_processes(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    from joblib.externals import loky  # here: few commands read many images
    from joblib.externals.loky.backend import get_context

    context = get_context("loky")
    try:
        shared = os.getpid(), context.Lock()
        pool = loky.ProcessPoolExecutor(min(PROCESSES, cpus()), context=context, initializer=_begin, initargs=shared, env=ONE_THREAD)
    except (OSError, NotImplementedError) as fault:  # no semaphores: a full or a missing /dev/shm
        raise _NoProcessesError(str(fault)) from None
    with pool:
        try:
            with _unheard():
                results = pool.map(work, items, chunksize=CHUNK)
        except OSError as fault:  # no more processes for this user or this container
            raise _NoProcessesError(str(fault)) from None
        try:
            yield from results
        except loky.BrokenProcessPool as fault:
            raise _NoProcessesError(f"one was ended, perhaps for want of memory ({str(fault).splitlines()[0]})") from None


@contextmanager
def _unheard() -> Iterator[None]:
    """Processes that are started in the block never see what Ctrl-C, `timeout` or Slurm send to a whole group: this process ends them."""
    resource_tracker.ensure_running()  # or it would be started within, and that ends with all signals unblocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int, one_large: Any) -> None:
    """As a process begins: it ends with the command, even with one that is killed, and all of them together open one large file at a
    time."""
    ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it was killed before
    opening.one_large = one_large
    warnings.simplefilter("ignore")  # see above
