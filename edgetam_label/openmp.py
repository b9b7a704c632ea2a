"""What OpenMP, which comes with torch, is told beforehand: it listens to the environment alone."""

from __future__ import annotations

import os


def share_cores() -> None:
    """Let the threads of this process wait for each other without keeping their cores busy.

    To be called before torch is imported. OpenMP on Linux otherwise spins for milliseconds where a
    thread waits for another, even if a program beside it has that one's core: with one such
    program, a track on two cores took five to seven times as long; so it is less than twice. What
    the user has set stays.
    """
    if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        # as many turns as OpenMP itself takes where it knows of more threads than cores
        os.environ["GOMP_SPINCOUNT"] = "1000"
