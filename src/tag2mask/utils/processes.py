"""Cores, threads of torch, and work spread over processes that end with the one that began them."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from tag2mask.errors import SpaceError

Job = TypeVar("Job")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: for single photographs, several threads mostly wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def spread(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    start: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
    modules: Sequence[str] = (),
) -> Iterator[Result]:
    """Do ``jobs`` in processes; yield the results in their order; ``SpaceError`` where a process was killed.

    ``work`` is a function of a module; ``start`` is called with ``arguments`` in each process before its first job.
    ``modules`` are imported once for all processes, also those of later calls: torch and Lightning take seconds.
    """
    remaining = iter(jobs)  # there may be a million: a batch waits at a time
    context = get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    with ProcessPoolExecutor(workers, context, _begin, (start, arguments)) as pool:
        try:
            while batch := list(islice(remaining, 50 * workers)):
                # A process begun now inherits the block, else Ctrl-C while it imports torch prints a traceback
                before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:
                    results = pool.map(work, batch)
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
                yield from results
        except BrokenProcessPool:
            remedy = "give the same command with fewer --workers: it goes on where it stopped"
            raise SpaceError(f"a process was killed, most likely for want of memory; {remedy}") from None


def _begin(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    if start is not None:
        start(*arguments)


def end_with_parent() -> None:
    """Let this process end soon after its parent, however that ended: a pool's process would wait for work for ever."""
    process, parent = parent_process(), os.getppid()

    def watch() -> None:
        if process is not None:  # begun by multiprocessing, whose server stands between the two
            process.join()
        while process is None and os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
