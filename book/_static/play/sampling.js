// The walk from noise to picture, as in minidiff/schedules.py, denoisers.py and samplers.py, for
// networks on the straight line x_t = (1 - t/T) x_0 + (t/T) eps that answer with eps - x_0.
"use strict";

// ------------------------------------------------------------------------------- the schedule

// Python's round: halves go to the even number.
function rounded(x) {
  const down = Math.floor(x);
  return x - down === 0.5 ? down + (down % 2) : Math.round(x);
}

// steps + 1 falling numbers from T to 0; above 1, `shift` puts them closer together where there is
// much noise (Esser et al. 2024, eq. 23).
function timesteps(T, steps, shift) {
  const grid = [];
  for (let i = 0; i <= steps; i++) {
    const u = (steps - i) / steps;
    const t = rounded((T * shift * u) / (1 + (shift - 1) * u));
    grid.push(i ? Math.max(Math.min(t, grid[i - 1] - 1), steps - i) : T);
  }
  return grid;
}

const signal = (t, T) => 1 - t / T; // alpha
const noisiness = (t, T) => t / T; // sigma

// ------------------------------------------------------------------------------- the samplers

const SAMPLERS = {
  ddim: { second: false, fresh: false },
  ddpm: { second: false, fresh: true },
  dpmpp_2m: { second: true, fresh: false },
  dpmpp_2m_sde: { second: true, fresh: true },
};

// From x_t to x_s as if x0 were right all the way (Song et al. 2021, eq. 12 and 16).
function move(x, t, s, T, x0, noise) {
  const [at, st, as, ss] = [signal(t, T), noisiness(t, T), signal(s, T), noisiness(s, T)];
  const kept = ((at * ss) / (as * st)) ** 2;
  const fresh = noise ? ss * Math.sqrt(1 - kept) : 0;
  const ofX = Math.sqrt(ss * ss - fresh * fresh) / st;
  const ofX0 = as - ofX * at;
  const z = fresh > 0 ? noise() : null;
  return x.map((value, i) => ofX * value + ofX0 * x0[i] + (z ? fresh * z[i] : 0));
}

// x_0 halfway to s, on the line through the last two (Lu et al. 2022).
function extrapolated(now, last, t, tLast, s, T) {
  if (!last || s === 0) return now;
  const lambda = (t) => Math.log(signal(t, T) / noisiness(t, T));
  const ratio = (lambda(s) - lambda(t)) / (lambda(t) - lambda(tLast)); // 0 after a step from T
  return now.map((value, i) => value + (ratio / 2) * (value - last[i]));
}

// Walks from x, yielding { index, t, x, x0 } after each step.
//   ask(x, t): promises x_0    noise(): numbers like x, for samplers that draw fresh ones
async function* walk({ ask, x, grid, T, sampler, noise }) {
  const rule = SAMPLERS[sampler];
  let last = null;
  for (let index = 0; index + 1 < grid.length; index++) {
    const [t, s] = [grid[index], grid[index + 1]];
    const x0 = await ask(x, t);
    const used = rule.second ? extrapolated(x0, last, t, grid[index - 1], s, T) : x0;
    x = move(x, t, s, T, used, rule.fresh ? noise : null);
    last = x0;
    yield { index, t: s, x, x0 };
  }
}

// --------------------------------------------------------------------------- what a network says

// x_0 from the network's answer y = eps - x_0
function guess(x, y, t, T) {
  const [a, s] = [signal(t, T), noisiness(t, T)];
  return x.map((value, i) => (value - s * y[i]) / (a + s));
}

// uncond + scale (cond - uncond) (Ho & Salimans 2022)
function guided(told, untold, scale) {
  return told.map((value, i) => untold[i] + scale * (value - untold[i]));
}

function clipped(x, [low, high]) {
  return x.map((value) => Math.min(Math.max(value, low), high));
}
