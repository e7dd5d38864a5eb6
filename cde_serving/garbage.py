"""Garbage collection of a process that answers."""

import gc


def keep_what_is_loaded() -> None:
    """
    Take what is loaded now out of all later collections.

    It stays as long as the process, and full collections that walked it (LIME's libraries alone: 30 ms) were the
    slowest answers.
    """
    gc.collect()
    gc.freeze()
