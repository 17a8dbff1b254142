"""Distribution matching: a student whose pictures are as likely as its teacher's.

In `minidiff.distillation` every noise has a partner, the end of the teacher's path. A student that
cannot hit it draws something between two ends: grey edges, specks, a stroke too many. Here noise
has no partner. The student walks from noise to a picture, the picture is noised again, and two
networks guess what is under that noise:

- the teacher, guided, who knows what pictures should look like;
- the *fake*, a network that is trained on the student's pictures, all the time, and so knows what
  those do look like.

Where the fake sees more of something than the teacher, the student draws it too often. Their
difference is the gradient of the Kullback-Leibler divergence between the two distributions,
averaged over the amounts of noise (Yin et al. 2024a, DMD, eq. 7), and goes back through the whole
walk. As in its second version (Yin et al. 2024b, DMD2) nothing holds the student to the pairs, the
fake learns before the student does, and it has a *critic*, which tells the student's pictures from
real ones by what the fake sees in them: the teacher, too, errs, and only real pictures show where.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff.denoisers import NetworkDenoiser, training_target
from minidiff.distillation import Distillation, jump
from minidiff.student import STEPS

ALONE = 100  #: first updates, in which only the fake learns: it must know the student to judge it
COPIES = 2  #: of each picture, noised each in its own way
RATE = 3e-4  #: the learning rate of the fake
CRITIC = 0.3  #: what the critic's loss counts beside the fake's
TO_BE_REAL = 0.1  #: what the critic's opinion counts beside the difference of the two guesses


class Fake(nn.Module):
    """A network that knows the student's pictures, and their critic.

    Args:
        network: a U-Net to begin with.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(True)
        width = network.config.channels[-1]
        self.critic = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, 1, 1)
        )
        self.seen = torch.empty(0)
        self.network.middle2.register_forward_hook(self._see)  # where the U-Net is narrowest

    def _see(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.seen = output

    def forward(self, x: Tensor, t: Tensor, **told: Any) -> Tensor:
        """As the network."""
        answer: Tensor = self.network(x, t, **told)
        return answer

    def real(self) -> Tensor:
        """(B,) log-odds that what it was shown last are real pictures, noised."""
        seen, self.seen = self.seen, torch.empty(0)
        odds: Tensor = self.critic(seen).float().mean((1, 2, 3))
        return odds


class Matching(Distillation):
    """The loss of a student that has already learnt to jump, and the fake beside it.

    Args and errors: as `Distillation`.

    Attributes:
        fake: told the same as the student, it begins as the teacher does.
        optimizer: of the fake.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.fake = Fake(self.averaged).to(next(self.averaged.parameters()).device)
        self.optimizer = torch.optim.AdamW(
            self.fake.parameters(), lr=RATE, betas=(0.0, 0.99), weight_decay=0.01
        )
        walks = self.student.evaluations  # most often as it is used
        self.walks = [n for n in walks for _ in range(len(walks) if n == STEPS else 1)]

    def match(
        self,
        network: Any,
        x0: Tensor,
        noise: Tensor,
        draw: Tensor,
        step: int,
        generator: torch.Generator,
        **condition: Any,
    ) -> Tensor:
        """(B,) what the student is told of its pictures, after an update of the fake.

        Half the mean squared difference of the two guesses, and the critic's doubts.

        Args:
            network: the student.
            x0: (B, C, H, W) real pictures.
            noise: like them, what the student's pictures start from.
            draw: (2, B) uniform numbers from 0 to 1, which choose a walk and scales.
            step: updates made so far.
            generator: source of the timesteps and of the noise upon the pictures.
            condition: tokens and mask.
        """
        low, high = self.student.guidance
        scale = low + (high - low) * draw[1]
        steps = self.walks[int(len(self.walks) * draw[0, 0])]
        alone = step < ALONE
        with torch.set_grad_enabled(not alone):
            drawn = self.walk(network, noise, scale, steps, condition)
        several, scales = {k: _copies(v) for k, v in condition.items()}, _copies(scale)
        told = self._told(self.fake, scales, torch.ones_like(scales), several)
        with _no_float16(x0.device):
            self._teach(told, _copies(x0), _copies(drawn.detach()), generator)
        if alone:
            return 0 * sum(weight.sum() for weight in network.parameters()).expand(len(noise))
        t, eps = self._noise(_copies(drawn), generator)
        x_t = self.schedule.add_noise(_copies(drawn), eps, t)
        self.fake.requires_grad_(False)
        guess = told.estimate(x_t, t)[0].detach().float()
        doubts = F.softplus(-self.fake.real()).view(COPIES, -1).mean(0)
        self.fake.requires_grad_(True)
        with torch.no_grad():
            wrong = self._wrong(_copies(drawn), x_t, t, guess, scales, several)
            wanted = drawn - wrong.unflatten(0, (COPIES, -1)).mean(0)
        return (drawn - wanted).square().flatten(1).mean(1) / 2 + TO_BE_REAL * doubts

    def walk(
        self, network: Any, x: Tensor, scale: Tensor, steps: int, condition: dict[str, Any]
    ) -> Tensor:
        """(B, C, H, W) the student's pictures, in so many jumps from noise x."""
        told = self._told(network, scale, torch.full_like(scale, steps), condition)
        grid = self.grid[:: self.finest // steps].to(x.device)
        for t, s in itertools.pairwise(grid):
            x = jump(self.schedule, told(x, t.expand(len(x))), s.expand(len(x))).float()
        return x

    def _teach(
        self, told: NetworkDenoiser, real: Tensor, drawn: Tensor, generator: torch.Generator
    ) -> None:
        """One update of the fake, a diffusion model of what is drawn, and of its critic."""
        drawn = drawn if self.clip is None else drawn.clamp(*self.clip)
        t, eps = self._noise(drawn, generator)
        answer = told.output(self.schedule.add_noise(drawn, eps, t), t).float()
        target = training_target(self.prediction_type, self.schedule, drawn, eps, t)
        loss = (answer - target).square().mean()
        loss = loss + CRITIC * F.softplus(self.fake.real()).mean()
        told.output(self.schedule.add_noise(real, eps, t), t)
        loss = loss + CRITIC * F.softplus(-self.fake.real()).mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.fake.parameters(), 1.0)
        self.optimizer.step()

    def _wrong(
        self,
        x0: Tensor,
        x_t: Tensor,
        t: Tensor,
        fake: Tensor,
        scale: Tensor,
        condition: dict[str, Any],
    ) -> Tensor:
        """(B, C, H, W) the fake's guess minus the teacher's, by what the teacher mends in x0.

        Args:
            x0: (B, C, H, W) the student's pictures.
            x_t, t: the same with noise, and (B,) how much.
            fake: (B, C, H, W) the fake's guess of x0.
            scale: (B,) of the guidance.
            condition: tokens and mask.
        """
        told = NetworkDenoiser(self.teacher, self.schedule, self.prediction_type, **condition)
        with_text, without = (each.estimate(x_t, t)[0].float() for each in (told, told.given()))
        teacher = torch.lerp(without, with_text, scale.view(-1, 1, 1, 1))
        if self.clip is not None:
            teacher, fake = teacher.clamp(*self.clip), fake.clamp(*self.clip)
        unit = (x0 - teacher).abs().mean((1, 2, 3), keepdim=True)
        return (fake - teacher) / unit.clamp(min=1e-3)

    def _noise(self, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(B,) timesteps between 2 and 98 % of the grid, and (B, C, H, W) noise."""
        device = generator.device
        share = 0.02 + 0.96 * torch.rand(len(x0), generator=generator, device=device)
        shift = self.schedule.shift
        t = shift * share / (1 + (shift - 1) * share) * self.schedule.num_train_timesteps
        eps = torch.randn(x0.shape, generator=generator, device=device)
        return t.long().clamp(min=1).to(x0.device), eps.to(x0)


def _no_float16(device: torch.device) -> Any:
    """The fake is trained without loss scaling, so that float16 would lose its gradients."""
    half = torch.get_autocast_dtype(device.type) == torch.float16
    return torch.autocast(device.type, enabled=False) if half else contextlib.nullcontext()


def _copies(x: Tensor) -> Tensor:
    return x.repeat(COPIES, *[1] * (x.dim() - 1))
