"""Cores, and work spread over processes that end with the one that began them."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from tag2mask.errors import InputError

Job = TypeVar("Job")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    start: Callable[..., None] | None = None,
    given: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Do ``jobs`` in processes, in any order, a few ahead of what is done: there may be a million.

    Args:
        work: a function of a module.
        jobs: its arguments.
        workers: processes.
        start: called with ``given`` in each process before its first job.
        given: its arguments.

    Raises:
        InputError: a process was killed.
    """
    waiting = iter(jobs)
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (start, given)) as pool:

        def submit(count: int) -> set[Future[Result]]:
            with _deaf():
                return {pool.submit(work, job) for job in islice(waiting, count)}

        try:
            running = submit(4 * workers)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= submit(len(done))
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise InputError(
                "a process was killed, most likely for want of memory; give the same command with fewer --workers: it "
                "goes on where it stopped"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _deaf() -> Iterator[None]:
    """Hear an interrupt only afterwards. Processes begun meanwhile stay deaf: they would each print a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(start: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
    end_with_parent()
    if start is not None:
        start(*given)


def end_with_parent() -> None:
    """Let this process end within a second of the one that began it, however that one ended."""
    process = parent_process()
    parent = os.getppid() if process is None else process.pid

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
