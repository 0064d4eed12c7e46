"""diffsweep: sweeps over a diffusion model, used as an image prior.

`import diffsweep as ds`, then `ds.sweep`, `ds.plan`, `ds.draw` and `ds.load`; `help(ds.sweep)` says how. Nothing heavy
is imported before one of them is used.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffsweep.api import draw, load, plan, sweep
    from diffsweep.core.problems import BadInput
    from diffsweep.report.results import Results
    from diffsweep.runner.listener import Listener

__all__ = ["BadInput", "Listener", "Results", "draw", "load", "plan", "sweep"]

_HOMES = {
    "BadInput": "diffsweep.core.problems",
    "Listener": "diffsweep.runner.listener",
    "Results": "diffsweep.report.results",
    "draw": "diffsweep.api",
    "load": "diffsweep.api",
    "plan": "diffsweep.api",
    "sweep": "diffsweep.api",
}


def _told(record: logging.LogRecord) -> bool:
    return "gemm_4bit_forward" not in str(record.msg)


# imported by others, bitsandbytes misses a kernel that nobody asked for
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_told)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("diffsweep")
    if name not in _HOMES:
        raise AttributeError(f"module 'diffsweep' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
