"""What an operating system refuses, in words: what happened, why, what to do, and whether the same command will do then.
Comes in: an OSError, or what Python and Ray make of one. Goes out: one line and an exit status. The one table of the kind."""

import errno
import os
import re
import resource
from collections.abc import Iterator
from dataclasses import dataclass

from trainables.parts.errors import ClusterLost, NotProven, StorageFault

KEPT = "nothing that was recorded is lost"
AGAIN = "then the same command continues"


@dataclass(frozen=True)
class Advice:
    """do: what mends it. status: 1 where it came over a study at work, 2 where the request cannot be carried out as it is."""

    do: str
    status: int = 1


TABLE = {
    errno.ENOSPC: Advice(f"Make room, {AGAIN}"),
    errno.EDQUOT: Advice(f"Your quota of that file system is used up: delete something or ask for more, {AGAIN}"),
    errno.EFBIG: Advice(f"Files there may not grow so large (`ulimit -f`, or the file system): raise the limit, {AGAIN}"),
    errno.EROFS: Advice("The file system may only be read: mount it for writing, or name another --storage", 2),
    errno.EACCES: Advice("Change its permissions, or name another --storage", 2),
    errno.EPERM: Advice("This user may not do that there: change its owner or permissions, or name another --storage", 2),
    errno.EIO: Advice(f"The disk, or the way to it, is at fault: look at `dmesg`; once it is sound, {AGAIN.removeprefix('then ')}"),
    errno.ESTALE: Advice(f"The file server has lost the file under us: mount it again, {AGAIN}"),
    errno.EMFILE: Advice(f"This process may open no more than {{files}} files: `ulimit -n 65536`, {AGAIN}"),
    errno.ENFILE: Advice(f"The machine can open no more files: end other programs, or raise fs.file-max, {AGAIN}"),
    errno.ENOLCK: Advice("That file system gives no locks, so two commands could write one study: name a --storage on another one", 2),
    errno.EAGAIN: Advice(
        f"No further process or thread may start ({{processes}} by `ulimit -u`, or a limit of the container): raise it, {AGAIN}"
    ),
    errno.ENOMEM: Advice(f"There is no memory left: end other programs, or run fewer at once (--slots), {AGAIN}"),
    errno.ENAMETOOLONG: Advice("The path is too long: choose a shorter --storage or --name, or, for Ray's sockets, a shorter TMPDIR", 2),
}
THREADS = "can't start new thread"  # a RuntimeError, for what the system says by EAGAIN
SOCKET = "AF_UNIX path"  # an OSError without a number: the path of a socket of Ray's is above 107 bytes


def chain(fault: BaseException) -> Iterator[BaseException]:
    """A fault and what it came from."""
    found: BaseException | None = fault
    while found is not None:
        yield found
        found = found.__cause__


def number_of(fault: BaseException) -> int | None:
    """The errno of a fault that the table knows, or of what it came from."""
    for one in chain(fault):
        if isinstance(one, OSError) and one.errno in TABLE:
            return one.errno
        if isinstance(one, OSError) and SOCKET in str(one):
            return errno.ENAMETOOLONG
        if isinstance(one, RuntimeError) and THREADS in str(one):
            return errno.EAGAIN
        if isinstance(one, StorageFault) and (told := re.search(r"could not be written: (.+)$", str(one))):
            return next((number for number in TABLE if os.strerror(number) == told[1]), None)  # a worker's, of which only words came here
    return None


def told(fault: BaseException) -> tuple[str, int] | None:
    """One line and the exit status; None for a fault that is no refusal of the system's, and so a fault of ours."""
    number = number_of(fault)
    if number is None:
        kept = f"{KEPT}, and {AGAIN.removeprefix('then ')}" if isinstance(fault, ClusterLost) else KEPT
        return (f"{fault}; {kept}", 1) if isinstance(fault, ClusterLost | StorageFault | NotProven) else None
    advice = TABLE[number]
    if isinstance(fault, StorageFault):
        what = str(fault)
    else:
        named = next((one.filename for one in chain(fault) if isinstance(one, OSError) and one.filename), None)
        what = f"{os.fsdecode(named)}: {os.strerror(number)}" if isinstance(named, str | bytes) else _plain(fault, number)
    files, processes = (resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    words = advice.do.format(files=files, processes="unlimited" if processes < 0 else processes)
    return f"{what}; {KEPT}. {words}", advice.status


def _plain(fault: BaseException, number: int) -> str:
    words = " ".join(str(fault).split())[:200]
    return words if words and not words.startswith("[Errno") else os.strerror(number)
