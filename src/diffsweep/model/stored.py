"""What is the same for every model whose files lie in a folder or on the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from diffsweep.core.problems import require
from diffsweep.model.source import Source
from diffsweep.model.weights import Part, contradiction


class Stored:
    """A model of files. source: where those of its networks lie, text encoders perhaps elsewhere."""

    source: Any

    def files(self) -> list[str]:
        """Those that decide the pictures, of prompts' encoders aside; BadInput where weights are missing."""
        raise NotImplementedError

    def places(self) -> Sequence[tuple[Source, list[str]]]:
        """The files that decide the pictures, by where they lie; BadInput where weights are missing."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """SHA-256 over names and contents of weights and configurations; BadInput where they are damaged."""
        return hashlib.sha256(" ".join(source.digest(files) for source, files in self.places()).encode()).hexdigest()

    def stamp(self) -> tuple[object, ...]:
        """Changes when a file does that the fingerprint is of."""
        return tuple(source.stamp(files) for source, files in self.places())

    def missing(self) -> dict[str, int]:
        """Bytes to download, by file, before the model can be loaded."""
        return {name: size for source, files in self.places() for name, size in source.missing(files).items()}

    def size(self) -> int:
        """Bytes of its files."""
        return sum(source.size(files) for source, files in self.places())

    def weighted(self) -> Sequence[Part]:
        """Its networks, text encoders among them."""
        raise NotImplementedError

    def check(self) -> None:
        """BadInput where weights that are there contradict their configurations."""
        require(*map(contradiction, self.weighted()))

    def fetch(self) -> None:
        """Download what is not there of its networks, and check that. A text encoder comes once there is a prompt to
        encode."""
        if self.source.missing(self.files()):
            self.source.fetch(self.files())
            self.check()
