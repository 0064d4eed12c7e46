"""Hydra plugins of diffsweep. Hydra scans them in every application it starts: they import nothing heavy. It runs each
module once more for that, but those that begin with an underscore, whose classes stay the same."""
