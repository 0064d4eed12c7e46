"""What is the same for every model whose files lie in a folder or on the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from diffsweep.model.source import Source


class Stored:
    """A model of files."""

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
