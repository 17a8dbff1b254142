"""The loss on pictures that were held out: the trainer and `minidiff evaluate` take the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minidiff.denoisers import NetworkDenoiser
from minidiff.inputs import plain_torch
from minidiff.model import ModelConfig
from minidiff.samplers import seeded_generator
from minidiff.schedules import whole_number

__all__ = ["HELD_OUT", "chosen", "loss_by_timestep"]

HELD_OUT = 512  #: pictures that the loss is the mean of, or all if there are fewer
LOSS_NOISE = 3  # see the purposes of random numbers in batches.py


def chosen(total: int) -> Tensor:
    """Rows of the held-out pictures that the loss is taken of, (`HELD_OUT`,) or fewer of fewer.

    Evenly spread over all of them: in order of code points the first glyphs are all rare ones.
    """
    return torch.linspace(0, total - 1, min(HELD_OUT, total)).long()


@plain_torch()
@torch.inference_mode()
def loss_by_timestep(
    network: nn.Module, config: ModelConfig, images: Tensor, *, bins: int = 8, **condition: Tensor
) -> dict[str, float]:
    """The training loss at timesteps t = T/16, 3T/16, …, with the same noise every time.

    On pictures that were held out this is the number to watch: where it rises while the training
    loss falls, the network has begun to memorise.

    Args:
        images: (B, C, H, W) in [-1, 1] or uint8.
        bins: how many timesteps, each the middle of an equal part of 1 … T; fewer than T.
        condition: keyword arguments of the network: tokens (B, n, d) and mask (B, n), or none.

    Returns:
        {"62": loss at t = 62, …, "mean": mean over all t}.

    Raises:
        ValueError: for another number of bins.
    """
    if not 1 <= whole_number("bins", bins) < config.num_train_timesteps:
        raise ValueError(
            f"bins must be at least 1 and below the {config.num_train_timesteps} timesteps of the "
            f"model, got {bins}"
        )
    x0 = config.space.to_data(images)
    eps = torch.randn(x0.shape, generator=seeded_generator(0, LOSS_NOISE)).to(x0.device)
    schedule = config.make_schedule()
    denoiser = NetworkDenoiser(network, schedule, config.prediction_type, **condition)
    result, mode = {}, network.training
    network.eval()
    try:
        for k in range(bins):
            t = round(schedule.num_train_timesteps * (2 * k + 1) / (2 * bins))
            losses = denoiser.loss(x0, torch.full((len(x0),), t, device=x0.device), eps)
            result[str(t)] = round(losses.mean().item(), 5)
    finally:
        network.train(mode)
    return {**result, "mean": round(sum(result.values()) / bins, 5)}
