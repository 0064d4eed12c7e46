"""Models in the shapes of public checkpoints, with random weights, for scripts/bench_gpu.py."""
