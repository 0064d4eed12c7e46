"""Where diffsweep's own files lie: a checkout reads its own folders, an installed package those inside the wheel."""

from pathlib import Path


def shipped(name: str) -> Path:
    """The folder `name` (`conf` or `sweeps`) that belongs to the running code.

    Editable installs also copy these folders beside the installed package, where they go stale: a checkout never
    reads those.
    """
    here = Path(__file__).resolve().parent
    checkout = here.parents[1]
    if here.parent.name == "src" and (checkout / "pyproject.toml").is_file():
        return checkout / name
    return here / name
