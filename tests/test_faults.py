"""What an operating system refuses is told as what it is."""

import errno
import os
import resource

import pytest

from search import api, cli, faults
from trainables.parts.errors import ClusterLost, StorageFault


@pytest.mark.parametrize("number", faults.TABLE)
def test_the_cause_named_is_the_cause(number):
    words, status = faults.told(OSError(number, os.strerror(number), "/some/file"))
    assert words.startswith(f"/some/file: {os.strerror(number)}; nothing that was recorded is lost. ") and status in (1, 2)
    assert "another search" not in words and "{" not in words
    wrapped, _ = faults.told(StorageFault(f"/some/file could not be written: {os.strerror(number)}"))
    assert wrapped.endswith(words.partition("lost. ")[2])


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOLCK, errno.ENAMETOOLONG])
def test_the_same_command_is_not_promised_to_go_on_where_it_would_not(number):
    assert "continues" not in faults.told(OSError(number, os.strerror(number)))[0]


def test_what_ray_and_python_make_of_a_refusal_is_recognised():
    assert "TMPDIR" in told_by(ClusterLost("Ray did not start"), OSError("AF_UNIX path length cannot exceed 107 bytes"))
    assert "ulimit -u" in faults.told(RuntimeError("can't start new thread"))[0]
    assert "may open no more than" in told_by(ClusterLost("Ray did not start"), OSError(errno.EMFILE, "Too many open files"))
    assert faults.told(RuntimeError("a fault of ours")) is None and faults.told(OSError(errno.ENOENT, "gone")) is None


def told_by(fault, cause):
    try:
        raise fault from cause
    except type(fault) as caught:
        return faults.told(caught)[0]


def test_a_process_without_files_left_says_so(inside, monkeypatch, capsys):
    def out_of_files(request, console=None):
        kept = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, kept[1]))
        try:
            open(os.devnull).close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, kept)

    monkeypatch.setattr(api, "run", out_of_files)
    assert cli.main(["toy"]) == 1
    assert "/dev/null: Too many open files" in capsys.readouterr().err


def test_a_fault_of_ours_is_no_refusal_and_keeps_its_traceback(inside, monkeypatch):
    def run(request, console=None):
        raise FileNotFoundError(errno.ENOENT, "No such file", "ours")

    monkeypatch.setattr(api, "run", run)
    with pytest.raises(FileNotFoundError):
        cli.main(["toy"])
