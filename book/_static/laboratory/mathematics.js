// The mathematics of the laboratory, as in minidiff's schedules, denoisers, samplers and toys: what is called
// alike there is alike here, and a test compares the numbers. Nothing in this file knows of the page.
// Points are a Float64Array x, y, x, y, … ; a timestep is a whole number, 0 = data, T = noise.
"use strict";

// ------------------------------------------------------------------------------ schedules

function fromBetas(name, betas) {
  const alpha = new Float64Array(betas.length + 1);
  const sigma = new Float64Array(betas.length + 1);
  let left = 1;
  alpha[0] = 1;
  betas.forEach((beta, i) => {
    left *= 1 - beta;
    alpha[i + 1] = Math.sqrt(left);
    sigma[i + 1] = Math.sqrt(1 - left);
  });
  return { name, T: betas.length, alpha, sigma };
}

const SCHEDULES = {
  straight(T) {
    const sigma = Float64Array.from({ length: T + 1 }, (_, t) => t / T);
    return { name: "straight", T, alpha: sigma.map((share) => 1 - share), sigma };
  },
  linear(T) {
    const beta = (i) => 1e-4 + ((0.02 - 1e-4) * i) / (T - 1);
    return fromBetas("linear", Array.from({ length: T }, (_, i) => 1 - (1 - beta(i)) ** (1000 / T)));
  },
  cosine(T) {
    const cumprod = (t) => Math.cos(((t / T + 0.008) / 1.008) * (Math.PI / 2)) ** 2;
    return fromBetas("cosine", Array.from({ length: T }, (_, t) => Math.min(0.999, 1 - cumprod(t + 1) / cumprod(t))));
  },
};

const makeSchedule = (name, T = 1000) => SCHEDULES[name](T);

const lambda = (schedule, t) => Math.log(schedule.alpha[t]) - Math.log(schedule.sigma[t]);

// Halves go to the even neighbour, as in Python.
function roundEven(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 ? low + 1 : low;
}

// steps + 1 falling timesteps, evenly from T to 0.
function timesteps(schedule, steps) {
  const grid = [schedule.T];
  for (let i = 1; i <= steps; i++) {
    const t = roundEven((schedule.T * (steps - i)) / steps);
    grid.push(Math.max(Math.min(t, grid[i - 1] - 1), steps - i));
  }
  return grid;
}

function addNoise(schedule, x0, eps, t) {
  const alpha = schedule.alpha[t];
  const sigma = schedule.sigma[t];
  return x0.map((value, i) => alpha * value + sigma * eps[i]);
}

// ------------------------------------------------------------------------------ denoisers
// A denoiser has a schedule and estimate(x, t), which returns [x0, eps], both like x.

const predict = (denoiser, x, t) => {
  const [x0, eps] = denoiser.estimate(x, t);
  return { x, t, x0, eps };
};

// exp(−d) for d from 0 to 40, three times as fast as Math.exp and right to eleven digits: a table and a few terms.
const FALLING = Float64Array.from({ length: 40 * 64 + 2 }, (_, k) => Math.exp(-k / 64));
function expMinus(d) {
  const k = (d * 64) | 0;
  const r = k / 64 - d;
  return FALLING[k] * (1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r / 24))));
}

// The average of all examples, each weighted by exp(−‖x − alpha example‖² / 2 sigma²).
function idealDenoiser(schedule, data) {
  function estimate(x, t) {
    const alpha = schedule.alpha[t];
    const sigma = schedule.sigma[t];
    const x0 = new Float64Array(x.length);
    const distance = new Float64Array(data.length / 2);
    for (let b = 0; b < x.length; b += 2) average(x, b, alpha, 0.5 / (sigma * sigma), distance, x0);
    return [x0, x.map((value, i) => (value - alpha * x0[i]) / sigma)];
  }
  function average(x, b, alpha, factor, distance, x0) {
    let least = Infinity;
    for (let i = 0; i < data.length; i += 2) {
      const dx = x[b] - alpha * data[i];
      const dy = x[b + 1] - alpha * data[i + 1];
      const d = factor * (dx * dx + dy * dy);
      distance[i >> 1] = d;
      if (d < least) least = d;
    }
    let total = 0;
    let sumX = 0;
    let sumY = 0;
    for (let i = 0; i < distance.length; i++) {
      const d = distance[i] - least;
      if (d > 40) continue; // below e⁻⁴⁰ nothing is left of a weight in these digits
      const weight = expMinus(d);
      total += weight;
      sumX += weight * data[2 * i];
      sumY += weight * data[2 * i + 1];
    }
    x0[b] = sumX / total;
    x0[b + 1] = sumY / total;
  }
  return { schedule, estimate };
}

// Classifier-free guidance: without + scale (told − without).
function guided(told, without, scale) {
  if (scale === 1) return told;
  const prolonged = (a, b) => b.map((value, i) => value + scale * (a[i] - value));
  return {
    schedule: told.schedule,
    estimate(x, t) {
      const [x0, eps] = told.estimate(x, t);
      const [x0Without, epsWithout] = without.estimate(x, t);
      return [prolonged(x0, x0Without), prolonged(eps, epsWithout)];
    },
  };
}

// (a, b) such that what a network is to say is a x0 + b eps.
const MIXING = {
  eps: () => [0, 1],
  x0: () => [1, 0],
  v: (alpha, sigma) => [-sigma, alpha],
  flow: () => [-1, 1],
};

// A network (x, t) → numbers like x, seen through a schedule: two equations, solved by Cramer's rule.
function networkDenoiser(network, schedule, predictionType) {
  return {
    schedule,
    estimate(x, t) {
      const alpha = schedule.alpha[t];
      const sigma = schedule.sigma[t];
      const [a, b] = MIXING[predictionType](alpha, sigma);
      const y = network(x, t);
      const determinant = alpha * b - sigma * a;
      return [
        x.map((value, i) => (b * value - sigma * y[i]) / determinant),
        x.map((value, i) => (alpha * y[i] - a * value) / determinant),
      ];
    },
  };
}

// q(x_t) on a lattice of n × n places from −reach to reach, row by row from below: the average of a bell curve
// around each alpha x0. A bell curve in two dimensions is one in x times one in y, so its exponentials are few;
// beyond six deviations it is nought.
function densityGrid(schedule, data, t, reach, n) {
  const alpha = schedule.alpha[t];
  const sigma = schedule.sigma[t];
  const grid = new Float64Array(n * n);
  const cell = (2 * reach) / (n - 1);
  const across = new Float64Array(n);
  const range = (centre) => [
    Math.max(0, Math.ceil((centre + reach - 6 * sigma) / cell)),
    Math.min(n - 1, Math.floor((centre + reach + 6 * sigma) / cell)),
  ];
  const bell = (offset) => Math.exp(-(offset * offset) / (2 * sigma * sigma));
  for (let i = 0; i < data.length; i += 2) {
    const x = alpha * data[i];
    const y = alpha * data[i + 1];
    const [left, right] = range(x);
    const [low, high] = range(y);
    for (let c = left; c <= right; c++) across[c] = bell(c * cell - reach - x);
    for (let r = low; r <= high; r++) {
      const up = bell(r * cell - reach - y);
      for (let c = left, at = r * n + left; c <= right; c++, at++) grid[at] += up * across[c];
    }
  }
  const all = (data.length / 2) * 2 * Math.PI * sigma * sigma;
  return grid.map((value) => value / all);
}

// ------------------------------------------------------------------------------- samplers

function move(schedule, x, t, s, x0, noise, eta = 0) {
  const { alpha, sigma } = schedule;
  const kept = ((alpha[t] * sigma[s]) / (alpha[s] * sigma[t])) ** 2;
  const fresh = eta * sigma[s] * Math.sqrt(1 - kept);
  const ofX = Math.sqrt(sigma[s] ** 2 - fresh ** 2) / sigma[t];
  const ofX0 = alpha[s] - ofX * alpha[t];
  const z = fresh > 0 ? noise() : null;
  return x.map((value, i) => ofX * value + ofX0 * x0[i] + (z ? fresh * z[i] : 0));
}

// x0 halfway from t to s, on the line through the last two guesses.
function extrapolated(schedule, now, s, history) {
  const last = history[history.length - 1];
  if (!last || s === 0) return now.x0;
  const [before, here, there] = [last.t, now.t, s].map((t) => lambda(schedule, t));
  const ratio = (there - here) / (here - before);
  return now.x0.map((value, i) => value + (ratio / 2) * (value - last.x0[i]));
}

const SAMPLERS = {
  ddpm: (denoiser, now, s, history, noise) => move(denoiser.schedule, now.x, now.t, s, now.x0, noise, 1),
  ddim: (denoiser, now, s, history, noise) => move(denoiser.schedule, now.x, now.t, s, now.x0, noise),
  heun(denoiser, now, s, history, noise) {
    const there = move(denoiser.schedule, now.x, now.t, s, now.x0, noise);
    if (s === 0) return there;
    const again = predict(denoiser, there, s).x0;
    const x0 = now.x0.map((value, i) => (value + again[i]) / 2);
    return move(denoiser.schedule, now.x, now.t, s, x0, noise);
  },
  dpmpp_2m(denoiser, now, s, history, noise) {
    const x0 = extrapolated(denoiser.schedule, now, s, history);
    return move(denoiser.schedule, now.x, now.t, s, x0, noise);
  },
  dpmpp_2m_sde(denoiser, now, s, history, noise) {
    const x0 = extrapolated(denoiser.schedule, now, s, history);
    return move(denoiser.schedule, now.x, now.t, s, x0, noise, 1);
  },
};

// Walk from xT along the grid; every step yields its timestep and the points there.
function* sampleSteps(denoiser, xT, sampler, grid, noise) {
  let x = xT;
  let history = [];
  for (let i = 0; i + 1 < grid.length; i++) {
    const now = predict(denoiser, x, grid[i]);
    x = SAMPLERS[sampler](denoiser, now, grid[i + 1], history, noise);
    history = [now];
    yield { t: grid[i + 1], x };
  }
}

// --------------------------------------------------------------------- chance, and shapes

// A small generator of random numbers with a seed (mulberry32): uniform() in [0, 1), normal() by Box and Muller.
function randomSource(seed) {
  let state = seed >>> 0;
  function uniform() {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  }
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const normals = (n) => Float64Array.from({ length: n }, normal);
  const uniforms = (n) => Float64Array.from({ length: n }, uniform);
  return { uniform, uniforms, normals };
}

// Mean 0 and deviation 1 along each axis.
function standardised(points) {
  const n = points.length / 2;
  const result = points.slice();
  for (const axis of [0, 1]) {
    let mean = 0;
    let square = 0;
    for (let i = axis; i < points.length; i += 2) mean += points[i] / n;
    for (let i = axis; i < points.length; i += 2) square += (points[i] - mean) ** 2;
    const deviation = Math.sqrt(square / Math.max(1, n - 1)) || 1;
    for (let i = axis; i < points.length; i += 2) result[i] = (points[i] - mean) / deviation;
  }
  return result;
}

// Each shape: n and a source of chance to { points, classes }, the class of a point being 0 or 1.
const SHAPES = {
  spiral(n, source, turns = 1.5, noise = 0.02) {
    const angle = source.uniforms(n).map((u) => 2 * Math.PI * turns * Math.sqrt(u));
    const eps = source.normals(2 * n);
    const arm = eps.map((e, i) => {
      const a = angle[i >> 1];
      return ((i % 2 ? Math.sin(a) : Math.cos(a)) * a) / (2 * Math.PI * turns) + noise * e;
    });
    return { points: standardised(arm), classes: Uint8Array.from(angle, (a) => (a > 2.1 * Math.PI ? 1 : 0)) };
  },
  moons(n, source, noise = 0.05) {
    const angle = source.uniforms(n).map((u) => Math.PI * u);
    const upper = source.uniforms(n).map((u) => (u < 0.5 ? 1 : 0));
    const eps = source.normals(2 * n);
    const points = eps.map((e, i) => {
      const [a, up] = [angle[i >> 1], upper[i >> 1]];
      const place = i % 2 ? (up ? Math.sin(a) : 0.5 - Math.sin(a)) : up ? Math.cos(a) : 1 - Math.cos(a);
      return place + noise * e;
    });
    return { points: standardised(points), classes: Uint8Array.from(upper, (up) => 1 - up) };
  },
  ring(n, source, count = 8, deviation = 0.1) {
    const k = source.uniforms(n).map((u) => Math.floor(u * count));
    const radius = Math.sqrt(2 * (1 - deviation ** 2));
    const points = source.normals(2 * n).map((e, i) => {
      const a = (2 * Math.PI * k[i >> 1]) / count;
      return radius * (i % 2 ? Math.sin(a) : Math.cos(a)) + deviation * e;
    });
    return { points, classes: Uint8Array.from(k, (spot) => (spot < 2 ? 1 : 0)) };
  },
  // The two groups of the chapter on the score, the right one four times as large.
  groups(n, source) {
    const right = source.uniforms(n).map((u) => (u < 0.8 ? 1 : -1));
    const points = source.normals(2 * n).map((e, i) => right[i >> 1] * (i % 2 ? 0.6 : 1.3) + 0.25 * e);
    return { points, classes: Uint8Array.from(right, (side) => (side < 0 ? 1 : 0)) };
  },
};
