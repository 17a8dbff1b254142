"""Cascade, second stage: a small network that draws 128 x 128 given the small picture.

    python upscale.py OUT --seconds 480 --first FOLDER

Beside x_t lie three channels: the small picture, twice as large (nearest), and two even planes that say
what was done to it: the share of noise mixed in (0 to 0.5), and from which t/T the first stage
has drawn it again (0 for a real picture). So the network knows how far to trust it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import minidiff
from minidiff.glyphs import GlyphDataset
from minidiff.spaces import Pixels
from minidiff.unet import UNet, UNetConfig

T0 = time.time()
CONFIG = dict(
    stem=2,
    channels=(32, 64, 96, 96),
    attention=(False, False, False, True),
    text_dim=None,
    condition_channels=3,
)
VARIANTS, STEPS = 6, 5


def say(*what):
    print(f"{time.time() - T0:6.1f}", *what, flush=True)


@torch.no_grad()
def redraw(pipeline, dataset, space, variants, device, low=100, high=700, batch=1024):
    """(variants, N, 1, 64, 64) uint8 real glyphs noised to t and drawn again by the first stage; (variants, N) t/T."""
    from minidiff.texts import encode_texts

    texts = [p[0] for p in dataset.prompts]
    table = encode_texts(texts, pipeline.text_encoder).to(device)
    rows = table.rows(texts).to(device)
    n = len(dataset)
    draw = torch.Generator(device).manual_seed(7)
    out = torch.empty(variants, n, 1, 64, 64, dtype=torch.uint8, device=device)
    share = torch.zeros(variants, n, device=device)
    net, last = pipeline.network, pipeline.config.num_train_timesteps
    images = dataset.images.to(device)
    for v in range(variants):
        s0 = (low + (high - low) * torch.rand(n, generator=draw, device=device)) / last
        share[v] = s0
        for first in range(0, n, batch):
            part = slice(first, first + batch)
            x0 = pipeline.space.to_data(images[part])
            s = s0[part]
            x = (1 - s[:, None, None, None]) * x0 + s[:, None, None, None] * torch.randn(
                x0.shape, generator=draw, device=device
            )
            text = table.batch(rows[part], length=32)
            for k in range(STEPS):
                t = (s * last).round().long().clamp(1, last)
                with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                    velocity = net(x, t, tokens=text.tokens, mask=text.mask).float()
                following = s0[part] * (1 - (k + 1) / STEPS)
                x = x + (following - s)[:, None, None, None] * velocity
                s = following
            out[v, part] = ((pipeline.space.to_images(x) + 1) * 127.5).round().to(torch.uint8)
    return out, share


class Data:
    def __init__(self, split, pipeline, device, variants):
        self.small_set = GlyphDataset(64, split)
        self.large = GlyphDataset(128, split).images.to(device)
        self.small = self.small_set.images.to(device)
        self.space = None
        self.again, self.share = redraw(pipeline, self.small_set, pipeline.space, variants, device)


def condition(data, space64, index, generator, redrawn, variant, noise_share, device):
    """(B, 3, 128, 128)."""
    real = data.small[index]
    again = data.again[variant, index]
    picture = torch.where(redrawn[:, None, None, None], again, real)
    x = space64.to_data(picture)
    s = noise_share[:, None, None, None]
    x = (1 - s) * x + s * torch.randn(x.shape, generator=generator, device=device)
    x = F.interpolate(x, scale_factor=2, mode="nearest")
    told = torch.where(redrawn, data.share[variant, index], torch.zeros_like(noise_share))
    planes = torch.stack([noise_share, told], 1)[:, :, None, None].expand(-1, -1, 128, 128)
    return torch.cat([x, planes], 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--first", required=True)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--variants", type=int, default=VARIANTS)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", type=int, default=0)
    a = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    a.out.mkdir(parents=True, exist_ok=True)
    pipeline = minidiff.load(a.first, device=device)
    if a.tiny:
        init = GlyphDataset.__init__

        def cut(self, *x, **y):
            init(self, *x, **y)
            self.images = self.images[: a.tiny]
            self.prompts = self.prompts[: a.tiny]
            self.glyphs = self.glyphs[: a.tiny]

        GlyphDataset.__init__ = cut
    train, test = Data("train", pipeline, device, a.variants), Data("test", pipeline, device, 1)
    say("data", tuple(train.large.shape), tuple(train.again.shape))
    space64 = pipeline.space
    space = Pixels.of(train.large.cpu())
    say("space", space)
    torch.manual_seed(0)
    net = UNet(UNetConfig(**CONFIG)).to(device)
    say("parameters", sum(p.numel() for p in net.parameters()))
    ema = UNet(UNetConfig(**CONFIG)).to(device).requires_grad_(False)
    ema.load_state_dict(net.state_dict())
    call = torch.compile(net) if a.compile else net
    opt = torch.optim.AdamW(
        net.parameters(), lr=a.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    g = torch.Generator(device).manual_seed(1)
    n, B = len(train.large), a.batch

    def batch_of(data, index, t_share, redrawn, variant, noise_share, g):
        x0 = space.to_data(data.large[index])
        eps = torch.randn(x0.shape, generator=g, device=device)
        s = t_share[:, None, None, None]
        return (
            (1 - s) * x0 + s * eps,
            eps - x0,
            condition(data, space64, index, g, redrawn, variant, noise_share, device),
        )

    @torch.no_grad()
    def held_out():
        m = min(256, len(test.large))
        result = {}
        for name, redrawn in (("real", False), ("redrawn", True)):
            for ts in (62, 312, 562, 812):
                h = torch.Generator(device).manual_seed(3)
                total = 0.0
                for first in range(0, m, 64):
                    index = torch.arange(first, min(m, first + 64), device=device)
                    full = torch.full((len(index),), 1.0, device=device)
                    x, want, cond = batch_of(
                        test, index, full * ts / 1000, full.bool() & redrawn, index * 0, full * 0, h
                    )
                    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                        said = ema(x, (full * ts).long(), picture=cond)
                    total += (said.float() - want).square().mean((1, 2, 3)).sum().item()
                result[f"{name} {ts}"] = round(total / m, 5)
        return result

    def save(name):
        save_file(
            {k: v.half().contiguous() for k, v in ema.state_dict().items()},
            a.out / f"{name}.safetensors",
        )
        (a.out / f"{name}.json").write_text(
            json.dumps(
                {
                    "unet": CONFIG,
                    "mean": space.mean,
                    "std": space.std,
                    "images_seen": step * B,
                    "seconds": round(time.time() - T0),
                    "device": str(torch.cuda.get_device_name() if device.type == "cuda" else "cpu"),
                    "batch": B,
                    "rate": a.rate,
                },
                indent=1,
            )
        )

    step, losses, report = 0, torch.zeros((), device=device), time.time()
    start = time.time()
    with open(a.out / "upscale.jsonl", "w") as log:
        while True:
            gone = time.time() - start
            left = 1 - gone / max(1e-9, a.seconds - (start - T0))
            if left <= 0:
                break
            rate = a.rate * min(1, (step + 1) / 300) * min(1, left / 0.6)
            for group in opt.param_groups:
                group["lr"] = rate
            index = torch.randint(n, (B,), generator=g, device=device)
            u = torch.randn(B, generator=g, device=device) * 1.6
            t = (torch.sigmoid(u) * 1000).ceil().clamp(1, 1000)
            redrawn = torch.rand(B, generator=g, device=device) < 0.6
            variant = torch.randint(a.variants, (B,), generator=g, device=device)
            noise_share = torch.rand(B, generator=g, device=device) * 0.5
            noise_share = torch.where(
                torch.rand(B, generator=g, device=device) < 0.4,
                torch.zeros_like(noise_share),
                noise_share,
            )
            with torch.no_grad():
                x, want, cond = batch_of(train, index, t / 1000, redrawn, variant, noise_share, g)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                said = call(x, t.long(), picture=cond)
            loss = (said.float() - want).square().mean()
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            opt.step()
            step += 1
            decay = min(0.999, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(ema.parameters()), list(net.parameters()), 1 - decay)
                losses += loss.detach()
            if step % 100 == 0 or step == 10:
                if step == 10 or time.time() - report > 45:
                    report = time.time()
                    entry = {
                        "step": step,
                        "images": step * B,
                        "seconds": round(gone, 1),
                        "rate": rate,
                        "loss": round(losses.item() / (step % 100 or 100), 5),
                        **held_out(),
                    }
                    log.write(json.dumps(entry) + "\n")
                    log.flush()
                    say(entry)
                    save("upscale")
                losses.zero_()
    entry = {"step": step, "images": step * B, **held_out()}
    log = open(a.out / "upscale.jsonl", "a")
    log.write(json.dumps(entry) + "\n")
    log.close()
    say("end", entry)
    save("upscale")


if __name__ == "__main__":
    main()
