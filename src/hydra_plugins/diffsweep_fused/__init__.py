"""Hydra plugins of diffsweep. Hydra scans them in every application it starts: they import nothing heavy."""
