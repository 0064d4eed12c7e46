"""The families of checkpoints that diffusers saves, one file each, found by the class that `model_index.json` names."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules

from diffsweep.model.family.family import Family


@lru_cache
def families() -> dict[str, Family]:
    """Every family, by the pipelines' classes."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    own = [kind for module in modules for kind in vars(module).values() if _is_family(kind, module.__name__)]
    return {name: kind() for kind in own for name in kind.pipeline}


def _is_family(kind: object, module: str) -> bool:
    return (
        isinstance(kind, type) and issubclass(kind, Family) and kind.__module__ == module and hasattr(kind, "pipeline")
    )
