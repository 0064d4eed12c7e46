#!/usr/bin/env python
"""The usual way, for `bench.py sweep`: a Hydra application with the basic launcher, its job loads the model."""

from dataclasses import dataclass

import hydra
from hydra.core.config_store import ConfigStore


@dataclass
class Job:
    seed: int = 0
    scale: float = 4.0
    steps: int = 30


ConfigStore.instance().store(name="job", node=Job)


@hydra.main(version_base="1.3", config_name="job", config_path=None)
def job(cfg: Job) -> None:
    import torch
    from diffusers import IFPipeline

    from diffsweep.model.source import Source

    pipe = IFPipeline.from_pretrained(Source("tiny").root, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    picture = pipe(
        "a photo of a dog",
        guidance_scale=cfg.scale,
        num_inference_steps=cfg.steps,
        generator=torch.Generator().manual_seed(cfg.seed),
        clean_caption=False,
    ).images[0]
    picture.save(f"{cfg.scale}-{cfg.seed}.png")


if __name__ == "__main__":
    job()
