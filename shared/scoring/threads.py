"""How many threads the numeric libraries use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep OpenMP and BLAS to one thread within the block, as in a worker process.

    Threads that wait for one another on busy cores made small fits fifty times slower than one thread alone.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    with threadpool_limits(limits=1):
        yield


def prefer_one_thread() -> None:
    """Let numeric libraries that are loaded from now on use one thread, unless the environment says otherwise.

    A service scores one claim at a time in each process. With a thread for each core, the threads of two processes
    spin for one another: on two busy cores that made a chunk of a CSV file five times slower.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
