"""Ours in diffusers: its schedulers around our networks, and our models as folders that it loads.

`scheduler_for` makes the scheduler that fits a model, `scheduler_steps` walks with any of them::

    pipeline = minidiff.load()
    scheduler = scheduler_for(pipeline.config, "ddim")
    x_T = standard_normal((16, *pipeline.config.shape))
    for x in scheduler_steps(scheduler, pipeline.denoiser("gold"), x_T, 20):
        pictures = pipeline.space.to_images(x)

`save_diffusers` writes a folder of safetensors and JSON, which `MiniDiffPipeline.from_pretrained`
opens. Its classes are in this module, so nobody has to trust code in a folder; once the module is
imported, `diffusers.DiffusionPipeline.from_pretrained` opens it, too.
"""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

try:
    import diffusers
    from diffusers import DiffusionPipeline, ModelMixin
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
except ImportError as error:
    raise ImportError("this needs diffusers: pip install diffusers") from error

from minidiff import networks, samplers
from minidiff.denoisers import Denoiser, Guided
from minidiff.encoder_files import ENCODERS
from minidiff.hub import public_record
from minidiff.inputs import as_path
from minidiff.model import ModelConfig
from minidiff.pipeline import Pipeline
from minidiff.schedules import Schedule, make_schedule, whole_number
from minidiff.storage import CheckpointError

# What a scheduler wants to be told, and what a `Prediction` calls it.
ANSWERS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v", "flow_prediction": "flow"}
ALGORITHMS = {"dpmpp_2m": "dpmsolver++", "dpmpp_2m_sde": "sde-dpmsolver++"}
NO_DATA = 4096.0  # sigma / alpha where no data is left: alpha² = 2⁻²⁴, as diffusers has it

README = """\
A diffusion model of minidiff, for diffusers. With `pip install minidiff diffusers`:

```python
from minidiff.diffusers_pipeline import MiniDiffPipeline

pipeline = MiniDiffPipeline.from_pretrained("path/to/this/folder")
pipeline({prompt}, num_images_per_prompt=4).images[0].save("drawn.png")
```
"""


# ------------------------------------------------------------------------------ its schedulers


def scheduler_for(config: ModelConfig, sampler: str = "dpmpp_2m_sde") -> Any:
    """The scheduler of diffusers that does what a sampler of ours does, with a model's noise.

    Args:
        config: of the model.
        sampler: "dpmpp_2m" and "dpmpp_2m_sde" are its DPMSolverMultistepScheduler; "ddim" is its
            FlowMatchEulerDiscreteScheduler on the straight line and its DDIMScheduler elsewhere,
            which keeps to its grid only where the steps divide T; "ddpm" its DDPMScheduler, which
            does not know the straight line.

    Returns:
        a scheduler that can be saved. Its prediction_type is that of the network, or what
        `scheduler_steps` makes of it: "v_prediction" for a network that predicts the flow of
        another noise than the straight line's.

    Raises:
        ValueError: for a sampler that has none, naming those that have.
    """
    steps, straight = config.num_train_timesteps, config.schedule == "straight"
    known = ("ddim", *ALGORITHMS) if straight else ("ddim", "ddpm", *ALGORITHMS)
    if sampler not in known:
        raise ValueError(
            f"diffusers has no scheduler for sampler {sampler!r} on schedule {config.schedule!r}: "
            f"choose one of {', '.join(known)}"
        )
    if straight and sampler == "ddim":
        return diffusers.FlowMatchEulerDiscreteScheduler(steps, shift=config.shift)
    options: dict[str, Any] = {"num_train_timesteps": steps, "timestep_spacing": "trailing"}
    if straight:
        shift = {"use_flow_sigmas": True, "flow_shift": config.shift}
        options |= {"prediction_type": "flow_prediction", **shift}
    else:
        wanted = (name for name, ours in ANSWERS.items() if ours == config.prediction_type)
        options["prediction_type"] = next(wanted).replace("flow", "v")
        options["trained_betas"] = make_schedule(config.schedule, steps).betas.tolist()
        options["rescale_betas_zero_snr"] = config.zero_terminal_snr
    if sampler in ALGORITHMS:
        options["algorithm_type"] = ALGORITHMS[sampler]
        return diffusers.DPMSolverMultistepScheduler(**options)
    kind = diffusers.DDIMScheduler if sampler == "ddim" else diffusers.DDPMScheduler
    return kind(clip_sample=False, **options)


def scheduler_steps(
    scheduler: Any,
    denoiser: Denoiser,
    x_T: Tensor,
    num_inference_steps: int = 20,
    generator: samplers.Generators = None,
    **options: Any,
) -> Iterator[Tensor]:
    """Walk from x_T to x_0 with a scheduler of diffusers, and yield the state after every step.

    The walk is that of our samplers, on the grid of the denoiser's schedule, where the scheduler
    lets itself be told one. It gets from the denoiser whatever its prediction_type asks for.

    Args:
        scheduler: made by `scheduler_for`, or another one for the same noise, for instance
            `EulerDiscreteScheduler.from_config(scheduler.config)`.
        denoiser: asked once a step.
        x_T: (B, ...) standard normal noise.
        num_inference_steps: N, from 1 to T.
        generator: source of fresh noise: one, or a list of one per picture.
        options: of the scheduler's `step`, for instance eta of DDIMScheduler.

    Raises:
        ValueError: for a scheduler of another noise, or impossible steps.
    """
    schedule = denoiser.schedule
    flow = not hasattr(scheduler, "alphas_cumprod") or scheduler.config.get("use_flow_sigmas")
    _check_noise(scheduler, schedule, bool(flow))
    first = 0 if flow else 1  # what it calls our timestep 1 is 0, or, on the straight line, 1
    _set_grid(scheduler, schedule, num_inference_steps, first)
    if "generator" in inspect.signature(scheduler.step).parameters:
        options["generator"] = samplers.checked_generators(generator, len(x_T))
    answer = ANSWERS[scheduler.config.get("prediction_type", "flow_prediction")]
    scaled = getattr(scheduler, "scale_model_input", lambda x, timestep: x)

    def walk() -> Iterator[Tensor]:
        x = x_T * getattr(scheduler, "init_noise_sigma", 1.0)
        for timestep in scheduler.timesteps:
            t = min(max(round(float(timestep)) + first, 1), schedule.num_train_timesteps)
            with torch.no_grad():
                told = getattr(denoiser(scaled(x, timestep), t), answer)
                x = scheduler.step(told, timestep, x, **options).prev_sample
            yield x

    return walk()


def _check_noise(scheduler: Any, schedule: Schedule, flow: bool) -> None:
    """Raise ValueError for a scheduler that takes away another noise than there is."""
    same = flow != schedule.is_variance_preserving
    if same and flow:
        same = scheduler.config.num_train_timesteps == schedule.num_train_timesteps
    elif same:
        ours, theirs = schedule.alphas_cumprod[1:], scheduler.alphas_cumprod.double()
        same = ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=0, atol=1e-3)
    if not same:
        raise ValueError(
            f"this {type(scheduler).__name__} is for another noise than {schedule}: take the one "
            "that scheduler_for(pipeline.config) makes, or one made from its config"
        )


def _set_grid(scheduler: Any, schedule: Schedule, steps: int, first: int) -> None:
    """Our grid, if a scheduler can walk on it: T first, and closer together as the shift says."""
    grid = schedule.timesteps(steps)
    timesteps = [t - first for t in grid[:-1]]
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "sigmas") and scheduler.order == 1:
        # In the open, for set_timesteps would round, and skip T on the straight line.
        sigmas = schedule.sigma.clone() if first == 0 else schedule.sigma / schedule.alpha
        if sigmas[-1].isinf():
            sigmas[-1] = max(NO_DATA, 2 * sigmas[-2].item())
        scheduler.sigmas = sigmas[grid]
        scheduler.timesteps = torch.tensor(timesteps, dtype=scheduler.timesteps.dtype)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
    elif "timesteps" in inspect.signature(scheduler.set_timesteps).parameters:
        scheduler.set_timesteps(timesteps=timesteps)


# ------------------------------------------------------------------------------ its folders


class MiniDiffUNet(ModelMixin, ConfigMixin):
    """A trained network of ours as a model of diffusers: it can be saved and loaded there.

    Args:
        model: what `ModelConfig.to_dict` gives.
        record: how it came about.

    Attributes:
        trained: the `ModelConfig`.
        network: one of `minidiff.networks`.
    """

    @register_to_config
    def __init__(self, model: dict[str, Any], record: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.trained = ModelConfig.from_dict(model)
        self.network = networks.build(self.trained.network)

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """As the network: timesteps in 1 … T; computed with as many digits as its weights have."""
        answer: Tensor = self.network(x.to(self.dtype), t, **condition)
        return answer.to(x.dtype)

    @classmethod
    def of(cls, pipeline: Pipeline) -> MiniDiffUNet:
        """A copy of the network of a pipeline, on its device.

        Raises:
            ValueError: for a model that takes more than a network and a schedule.
        """
        unfit = {
            "draws in two stages": pipeline.second is not None,
            "is a student, which has steps of its own": pipeline.config.student is not None,
            "draws in the latents of an autoencoder": pipeline.space.factor != 1,
        }
        for what, is_so in unfit.items():
            if is_so:
                raise ValueError(f"this model {what}: that cannot be given to diffusers")
        unet = cls(pipeline.config.to_dict(), public_record(pipeline.record))
        unet.network.load_state_dict(pipeline.network.state_dict())
        return unet.to(pipeline.device).eval()

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> MiniDiffUNet:
        """As in diffusers, but never from a pickle.

        Raises:
            CheckpointError: if it reads texts with an encoder of its own.
        """
        unet = super().from_pretrained(*args, **{**options, "use_safetensors": True})
        if unet.trained.text_encoder not in (None, *ENCODERS):
            raise CheckpointError(
                f"this model reads texts with {unet.trained.text_encoder!r}, which nobody here has "
                f"asked for: only {' and '.join(ENCODERS)} are taken from a folder of diffusers"
            )
        return unet.to(memory_format=torch.channels_last)


class MiniDiffPipeline(DiffusionPipeline):
    """A model of ours as a pipeline of diffusers.

    Args:
        unet: the network, and what it was trained for.
        scheduler: of the same noise, see `scheduler_for`; another one may be put in its place.

    Raises:
        TypeError: for another network.
    """

    def __init__(self, unet: MiniDiffUNet, scheduler: Any) -> None:
        if not isinstance(unet, MiniDiffUNet):
            raise TypeError(f"unet must be a MiniDiffUNet, got a {type(unet).__name__}")
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self._ours: Pipeline | None = None  # kept: its text encoder takes seconds to load

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> MiniDiffPipeline:
        """As in diffusers, but never from a pickle."""
        return super().from_pretrained(*args, **{**options, "use_safetensors": True})

    @classmethod
    def of(cls, pipeline: Pipeline, sampler: str = "dpmpp_2m_sde") -> MiniDiffPipeline:
        """The same model, drawing with the scheduler for a sampler.

        Raises:
            ValueError: as `scheduler_for`.
        """
        return cls(MiniDiffUNet.of(pipeline), scheduler_for(pipeline.config, sampler))

    def __call__(
        self,
        prompt: str | Sequence[str] = "",
        negative_prompt: str = "",
        num_images_per_prompt: int = 1,
        num_inference_steps: int = 20,
        guidance_scale: float = 3.0,
        generator: samplers.Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        **options: Any,
    ) -> Any:
        """Draw pictures of one or several prompts; see `minidiff.pipeline.Pipeline.steps`.

        Args:
            generator: source of the noise: one, or a list of one per picture. With the list of
                `seeded_generator(seed, i)` for i = 0, 1, … they are those of our `seed`.
            output_type: "pil", "np" (N, H, W, C) or "pt" (N, C, H, W), both in [0, 1].
            return_dict: whether they are in `.images` of the answer, or the first of a tuple.
            options: of the scheduler's `step`.

        Raises:
            ValueError: for impossible values, naming them.
        """
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f'output_type must be "pil", "np" or "pt", got {output_type!r}')
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        each = whole_number("num_images_per_prompt", num_images_per_prompt)
        if each < 1 or not prompts:
            raise ValueError(f"there is nothing to draw: {each} pictures of {len(prompts)} prompts")
        ours = self._drawing()
        ours.check_memory(each * len(prompts))
        told, without = ours.denoiser(prompts), ours.denoiser(negative_prompt)
        told = told.given(**{n: x.repeat_interleave(each, 0) for n, x in told.condition.items()})
        if not told.condition and not without.condition:
            guidance_scale = 1.0  # nothing to follow: both passes would say the same
        denoiser = Guided(told, without, guidance_scale, clip=ours.space.data_range)
        shape = (each * len(prompts), *ours.config.shape)
        x = samplers.standard_normal(shape, generator, ours.device)
        walk = scheduler_steps(
            self.scheduler, denoiser, x, num_inference_steps, generator, **options
        )
        with self.progress_bar(total=num_inference_steps) as bar:
            for state in walk:
                x = state
                bar.update()
        pictures: Any = (ours.space.to_images(x).cpu() + 1) / 2
        if output_type != "pt":
            pictures = pictures.permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            pictures = self.numpy_to_pil(pictures)
        return ImagePipelineOutput(images=pictures) if return_dict else (pictures,)

    def _drawing(self) -> Pipeline:
        """Our pipeline around the network, where that is now."""
        unet, device = self.unet, self.unet.device
        if self._ours is None or self._ours.network is not unet:
            self._ours = Pipeline(unet, unet.trained, unet.config.get("record"), device)
        elif self._ours.device != device:
            self._ours.to(device)
        return self._ours


# DiffusionPipeline.from_pretrained looks there for the class that a folder names.
diffusers.MiniDiffPipeline = MiniDiffPipeline


def save_diffusers(pipeline: Pipeline, folder: str | Path, sampler: str = "dpmpp_2m_sde") -> None:
    """Write a model as a folder of diffusers: model_index.json, unet/, scheduler/, README.md.

    Args:
        pipeline: the model.
        folder: new or empty; it is there whole or not at all.
        sampler: whose scheduler goes with it, see `scheduler_for`.

    Raises:
        FileExistsError: if the folder holds anything.
        OSError: where it cannot be written.
        ValueError: for a sampler without a scheduler, or a model whose text encoder others do not
            have.
    """
    folder, encoder = as_path("folder", folder), pipeline.config.text_encoder
    if encoder not in (None, *ENCODERS):
        raise ValueError(
            f"this model reads texts with {encoder!r}, which others do not have: only models with "
            f"{' or '.join(ENCODERS)}, or without text, can be given away"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} holds something already: choose another folder")
    theirs = MiniDiffPipeline.of(pipeline, sampler)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.part-", dir=folder.parent))
    try:
        theirs.save_pretrained(part, safe_serialization=True)
        readme = README.format(prompt='""' if encoder is None else '"a text"')
        (part / "README.md").write_text(readme, encoding="utf-8")
        part.chmod(0o755)  # temporary folders and safetensors are for one user only
        for path in part.rglob("*.safetensors"):
            path.chmod(0o644)
        if folder.exists():
            folder.rmdir()  # Windows renames onto nothing
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
