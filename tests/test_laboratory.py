"""The laboratory's mathematics, in JavaScript, gives the package's numbers."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from browser import run_javascript
from helpers import ROOT
from minidiff import toys
from minidiff.denoisers import (
    PREDICTION_TYPES,
    Guided,
    IdealDenoiser,
    NetworkDenoiser,
    training_target,
)
from minidiff.figures.noising import finite_density
from minidiff.samplers import SAMPLERS, sample_steps, standard_normal
from minidiff.schedules import SCHEDULES, make_schedule

FOLDER = ROOT / "book" / "_static" / "laboratory"
FILES = [FOLDER / "mathematics.js", FOLDER / "network.js"]
POINTS = "const points = (list) => Float64Array.from(list.flat());"


def javascript(body: str, **given: Any) -> Any:
    """What the body returns, told these values; tensors become nested lists."""
    lists = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in given.items()}
    return run_javascript(FILES, POINTS + body, lists)


def of(answer: Any, *shape: int) -> Tensor:
    return torch.tensor(answer, dtype=torch.float64).reshape(shape)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plane(n: int, seed: int = 0) -> Tensor:
    return torch.randn((n, 2), generator=source(seed), dtype=torch.float64)


@pytest.mark.parametrize("T", [1000, 64])
def test_schedules_have_the_same_tables(T: int) -> None:
    body = "return given.names.map((name) => makeSchedule(name, given.T));"
    for name, table in zip(SCHEDULES, javascript(body, names=list(SCHEDULES), T=T), strict=True):
        schedule = make_schedule(name, T)
        assert torch.allclose(of(table["alpha"], -1), schedule.alpha, rtol=1e-9, atol=1e-12), name
        assert torch.allclose(of(table["sigma"], -1), schedule.sigma, rtol=1e-9, atol=1e-12), name


def test_grids_have_the_same_timesteps() -> None:
    body = """const schedule = makeSchedule("straight");
    return Array.from({ length: 200 }, (_, i) => timesteps(schedule, i + 1));"""
    schedule = make_schedule("straight")
    assert javascript(body) == [schedule.timesteps(n) for n in range(1, 201)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_ideal_denoiser_and_guidance_give_the_same_guess(name: str) -> None:
    data, x, times = plane(300), 2 * plane(50, seed=1), [1, 20, 300, 700, 1000]
    body = """const schedule = makeSchedule(given.name);
    const ideal = (list) => idealDenoiser(schedule, points(list));
    const all = ideal(given.data);
    const told = guided(ideal(given.data.slice(0, 100)), all, 3);
    return given.times.map((t) => [all, told].map((one) => one.estimate(points(given.x), t)));"""
    schedule = make_schedule(name)
    ideal = IdealDenoiser(schedule, data)
    told = Guided(IdealDenoiser(schedule, data[:100]), ideal, 3.0)
    for t, answers in zip(times, javascript(body, name=name, data=data, x=x, times=times)):
        for denoiser, (x0, eps) in zip((ideal, told), answers, strict=True):
            expected = denoiser(x, t)
            assert torch.allclose(of(x0, 50, 2), expected.x0, atol=1e-8), t
            assert torch.allclose(of(eps, 50, 2), expected.eps, atol=1e-7), t


def test_far_from_all_points_the_guess_is_still_one() -> None:
    """Where every weight would be nought, in floats, the nearest point has all of it."""
    body = """const ideal = idealDenoiser(makeSchedule("cosine"), points(given.data));
    return ideal.estimate(points([[50, 0]]), 1)[0];"""
    assert javascript(body, data=[[1, 0], [-1, 0]]) == [1, 0]


def test_the_density_is_that_of_the_figures() -> None:
    data, schedule, line = plane(200), make_schedule("cosine"), torch.linspace(-3, 3, 31)
    places = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    body = """const schedule = makeSchedule("cosine");
    return given.times.map((t) => densityGrid(schedule, points(given.data), t, 3, 31));"""
    times = [30, 300, 900]
    for t, grid in zip(times, javascript(body, data=data, times=times)):
        amounts = schedule.alpha[t].item(), schedule.sigma[t].item()
        expected = finite_density(data.float(), *amounts, places).double()
        assert torch.allclose(of(grid, 31, 31), expected, atol=1e-4 * expected.max().item()), t


@pytest.mark.parametrize("name", SCHEDULES)
def test_samplers_walk_the_same_way(name: str) -> None:
    """With the same fresh noise handed in, every state of every sampler agrees."""
    data, x_T, steps = plane(60), plane(8, seed=1), 12
    generator = source(2)
    noise = [standard_normal((8, 2), generator, dtype=torch.float64).tolist() for _ in range(steps)]
    body = """const schedule = makeSchedule(given.name);
    const ideal = idealDenoiser(schedule, points(given.data));
    const grid = timesteps(schedule, given.noise.length);
    return given.samplers.map((sampler) => {
      let drawn = 0;
      const fresh = () => points(given.noise[drawn++]);
      return Array.from(sampleSteps(ideal, points(given.x_T), sampler, grid, fresh));
    });"""
    settings = {"name": name, "samplers": list(SAMPLERS), "data": data, "x_T": x_T, "noise": noise}
    ideal = IdealDenoiser(make_schedule(name), data)
    for sampler, walk in zip(SAMPLERS, javascript(body, **settings), strict=True):
        expected = list(sample_steps(ideal, x_T, sampler, steps, source(2)))
        assert [step["t"] for step in walk] == [step.t for step in expected]
        for step, other in zip(walk, expected, strict=True):
            assert torch.allclose(of(step["x"], 8, 2), other.x, atol=1e-6), (sampler, other.t)


@pytest.mark.parametrize("name", ["spiral", "moons"])
def test_shapes_are_the_book_s(name: str) -> None:
    n = 400
    expected = getattr(toys, name)(n, source(3))
    chance = source(3)
    uniforms = [torch.rand(n, generator=chance).tolist() for _ in range(1 + (name == "moons"))]
    normals = torch.randn((n, 2), generator=chance)
    body = """let drawn = 0;
    const source = { uniforms: () => Float64Array.from(given.uniforms[drawn++]),
                     normals: () => points(given.normals) };
    return SHAPES[given.name](given.normals.length, source);"""
    shape = javascript(body, name=name, uniforms=uniforms, normals=normals)
    assert torch.allclose(of(shape["points"], n, 2), expected.double(), atol=1e-4)
    assert 0.2 < sum(shape["classes"]) / n < 0.8


def test_the_other_shapes_and_the_source_of_chance_have_the_right_moments() -> None:
    body = """const source = randomSource(5);
    return [SHAPES.ring(20000, source).points, SHAPES.groups(20000, source).points,
            source.normals(40000), source.uniforms(40000)];"""
    ring, groups, normals, uniforms = javascript(body)
    ring, groups = of(ring, -1, 2), of(groups, -1, 2)
    assert ring.mean(0).abs().max() < 0.03 and (ring.var(0) - 1).abs().max() < 0.03
    right = (groups[:, 0] > 0).double().mean()
    assert abs(right - 0.8) < 0.02
    group = groups[groups[:, 0] > 0]
    assert torch.allclose(group.mean(0), torch.tensor([1.3, 0.6]).double(), atol=0.02)
    assert (group.std(0) - 0.25).abs().max() < 0.02
    assert abs(of(normals, -1).mean()) < 0.02 and abs(of(normals, -1).std() - 1) < 0.02
    assert abs(of(uniforms, -1).mean() - 0.5) < 0.01 and 0 <= min(uniforms) < max(uniforms) < 1


# ------------------------------------------------------------------------ the network


def toy_network(width: int = 8, layers: int = 3) -> toys.ToyNetwork:
    torch.manual_seed(0)
    return toys.ToyNetwork(width=width, layers=layers).double()


def weights_of(network: toys.ToyNetwork) -> list[Any]:
    """Its parameters; in the laboratory the first layer has two more columns, for the class."""
    first, *rest = network.parameters()
    wider = torch.cat([first, torch.zeros(len(first), 2, dtype=first.dtype)], dim=1)
    return [wider.flatten().tolist(), *(part.flatten().tolist() for part in rest)]


LOAD = """const network = toyNetwork(1000, randomSource(0), 8, 3);
network.parameters().forEach((part, k) => part.set(given.weights[k]));"""


def test_the_network_and_its_gradient_are_those_of_torch() -> None:
    network, x, target = toy_network(), plane(10), plane(10, seed=1)
    t = torch.tensor([1, 5, 50, 100, 250, 400, 600, 800, 999, 1000])
    body = (
        LOAD
        + """const { each, gradients } = network.lossAndGradients(
      points(given.x), given.t, -1, points(given.target));
    return [network.output(points(given.x), given.t), each, gradients];"""
    )
    settings = {"weights": weights_of(network), "x": x, "t": t, "target": target}
    output, each, gradients = javascript(body, **settings)
    said = network(x, t)
    losses = (said - target).square().mean(1)
    losses.mean().backward()
    # The package keeps its frequencies in single precision.
    assert torch.allclose(of(output, 10, 2), said.detach(), atol=1e-5)
    assert torch.allclose(of(each, 10), losses.detach(), atol=1e-5)
    for ours, part in zip(gradients, network.parameters(), strict=True):
        assert part.grad is not None
        theirs, ours = part.grad, of(ours, len(part), -1)[:, : part[0].numel()]
        assert torch.allclose(ours.reshape(theirs.shape), theirs, atol=1e-5), part.shape


def test_adam_moves_as_torch_s() -> None:
    start, gradients = plane(4), [plane(4, seed) for seed in range(1, 8)]
    parameter = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([parameter], lr=0.01)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    body = """const parameter = points(given.start);
    const step = adam([parameter], 0.01);
    for (const gradient of given.gradients) step([points(gradient)]);
    return parameter;"""
    moved = javascript(body, start=start, gradients=[g.tolist() for g in gradients])
    assert torch.allclose(of(moved, 4, 2), parameter.detach(), atol=1e-10)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_a_network_is_seen_through_the_schedule_as_in_the_package(kind: str) -> None:
    schedule, x0, eps, t = make_schedule("cosine"), plane(6), plane(6, seed=1), 400
    x = schedule.add_noise(x0, eps, t)
    body = """const schedule = makeSchedule("cosine");
    const batch = { x0: points(given.x0), eps: points(given.eps), t: Array(6).fill(given.t) };
    const target = targets(schedule, batch, given.kind);
    const denoiser = networkDenoiser(() => target, schedule, given.kind);
    return [target, ...denoiser.estimate(points(given.x), given.t)];"""
    answers = javascript(body, kind=kind, x=x, x0=x0, eps=eps, t=t)
    target, *solved = (of(answer, 6, 2) for answer in answers)
    assert torch.allclose(target, training_target(kind, schedule, x0, eps, t))
    denoiser = NetworkDenoiser(lambda *_: target, schedule, kind)
    for ours, theirs, truth in zip(solved, denoiser.estimate(x, t), (x0, eps), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9) and torch.allclose(ours, truth, atol=1e-9)


def test_training_comes_down_to_the_best_possible_loss_and_not_below() -> None:
    body = """const schedule = makeSchedule("cosine");
    const source = randomSource(1);
    const data = SHAPES.groups(400, source);
    const pupil = trainer(schedule, data.points, data.classes, "flow", source);
    for (let i = 0; i < 900; i++) pupil.step();
    const ideal = idealDenoiser(schedule, data.points);
    return [pupil.losses, Array.from(pupil.losses, (_, k) => (
      bestLoss(ideal, data.points, data.classes, "flow", k, source)))];"""
    learnt, best = (of(values, -1) for values in javascript(body))
    noisy = slice(6, None)  # with less noise the single points count, which it has not learnt
    assert (learnt[noisy] / best[noisy]).mean() < 1.25
    assert learnt.mean() > 0.95 * best.mean()
    guessing_nothing = 2.0  # variance of eps − x_0
    assert learnt[noisy].mean() < 0.8 * guessing_nothing


# ------------------------------------------------------------------------ the page as a text


def test_the_page_asks_nobody_and_keeps_its_policy() -> None:
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy and "default-src 'none'" in policy[1] and "unsafe" not in policy[1]
    assert not re.search(r"<script(?! src=)|<style|\son\w+=|style=", page)
    for script in re.findall(r'(?:src|href)="([^"#]+)"', page):
        assert (FOLDER / script).is_file(), script
    for path in FOLDER.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\beval\(|new Function|innerHTML|fetch\(|https?://", text), path.name
        assert len(text.splitlines()) <= 400, path.name
