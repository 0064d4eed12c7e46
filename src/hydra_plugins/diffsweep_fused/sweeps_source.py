"""`sweeps://` on Hydra's search path: a folder's `sweeps/`, and nothing else of that folder."""

from diffsweep.paths import shipped
from hydra_plugins.diffsweep_fused._files import UserFiles


class SweepsSource(UserFiles):
    """Sweep files by name: `sweeps://.` is the user's `./sweeps`, `sweeps://diffsweep` the shipped ones.

    `file://.` would do, but makes a config group of *every* folder the user happens to stand beside: with a folder
    `plugins/` or `seed/` there, `plugins=[mine]` and `seed=3` become choices of a group and are refused.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        if self.path == "diffsweep":
            self.path = str(shipped("sweeps").parent)

    @staticmethod
    def scheme() -> str:
        return "sweeps"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return not config_path or (_served(config_path) and super().is_group(config_path))

    def is_config(self, config_path: str) -> bool:
        return _served(config_path) and super().is_config(config_path)


def _served(config_path: str) -> bool:
    return config_path.split("/")[0] == "sweeps"
