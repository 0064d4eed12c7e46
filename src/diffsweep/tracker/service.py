"""wandb's own service, a program beside this one, and the runs that are opened in it.

Its settings keep what is not the sweep's to this machine: neither the terminal, the code, nor the machine is recorded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory
from threading import Event, Timer
from typing import TYPE_CHECKING, Any

from diffsweep.tracker.agent import under_agent

if TYPE_CHECKING:
    from wandb import Run, Settings

FAILURES = (Exception, SystemExit)  # wandb exits with its service's exit code
SOON = 5.0  # seconds that need no word
PRIVATE = {
    "console": "off",
    "save_code": False,
    "disable_git": True,
    "host": "",
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
SERVICE = {"WANDB_ERROR_REPORTING": "false", "WANDB_FINISH_TIMEOUT": "120", "WANDB_FINISH_TIMEOUT_RAISES": "true"}
_left = Event()  # whether it was killed while a thread is still at it: to be left alone


@contextmanager
def service() -> Iterator[Settings]:
    """wandb's service as long as it is needed, and the settings it found: silent, so it asks for no key, with its own
    log and an artifact's copies (which it writes to caches) not kept and its own errors not reported."""
    import wandb

    _left.clear()
    with TemporaryDirectory(prefix="diffsweep-", ignore_cleanup_errors=True) as cache:
        wanted = {"WANDB_CACHE_DIR": cache, "WANDB_DATA_DIR": cache, **SERVICE}
        own = {name: value for name, value in wanted.items() if name not in os.environ}
        os.environ.update(own)
        try:
            yield wandb.setup(wandb.Settings(silent=True)).settings
        except FAILURES:
            raise
        except BaseException:  # an interrupt: nothing is waited for any more
            _kill()
            raise
        finally:
            for name in own:
                del os.environ[name]
            if wandb.run is None and not _left.is_set():  # none that the caller has open
                with suppress(*FAILURES):  # every run has ended, or its failure is known; of a service that was killed
                    wandb.teardown()


def leave() -> None:
    """End the service while a thread still uses it; waits for neither."""
    _left.set()
    _kill()


def _kill() -> None:
    """Kill the service: otherwise wandb waits for the service, and the service waits for the server. wandb has no
    public way."""
    import wandb

    connection: Any = wandb.setup()._connection
    if connection and connection._proc:
        connection._proc._process.kill()
        connection._proc.join()
        connection._cleanup()  # of what it does when the program ends


def start(**arguments: Any) -> Run:
    """Start a run in place of one of the same id. Resuming that one would repeat its steps."""
    import wandb

    settings = {**PRIVATE, **({"stop_fn": _go_on} if under_agent() else {})}
    return wandb.init(**arguments, resume=None, reinit="create_new", settings=settings)


@contextmanager
def awaited() -> Iterator[None]:
    """Says what diffsweep waits for, where that takes long."""
    timer = Timer(SOON, lambda: print("wandb: sending what is left", file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _go_on() -> None:
    """Called when the server stops the run. Does nothing: its agent ends the process."""
