from diffsweep.core.problems import BadInput, did_you_mean

__all__ = ["BadInput", "did_you_mean"]
