// A small network for points, trained where it is read: minidiff's ToyNetwork, its gradient by hand, and Adam.
// Besides (x, t) it may be told a class. Nothing in this file knows of the page.
"use strict";

const FEATURES = 12; // six sines and six cosines of t
const CLASSES = 2;

// layers hidden layers of width numbers; source draws the first weights, as PyTorch does.
function toyNetwork(T, source, width = 64, layers = 3) {
  const sizes = [2 + FEATURES + CLASSES, ...Array(layers).fill(width), 2];
  const weights = [];
  const biases = [];
  for (let l = 0; l + 1 < sizes.length; l++) {
    const bound = 1 / Math.sqrt(sizes[l]);
    weights.push(source.uniforms(sizes[l + 1] * sizes[l]).map((u) => (2 * u - 1) * bound));
    biases.push(source.uniforms(sizes[l + 1]).map((u) => (2 * u - 1) * bound));
  }

  // x (2n numbers), one timestep or n of them, a class or n of them (−1: none) → inputs of the first layer.
  function inputs(x, t, classes) {
    const n = x.length / 2;
    const rows = new Float64Array(n * sizes[0]);
    for (let b = 0; b < n; b++) {
      const at = b * sizes[0];
      const time = typeof t === "number" ? t : t[b];
      rows[at] = x[2 * b];
      rows[at + 1] = x[2 * b + 1];
      for (let k = 0; k < FEATURES / 2; k++) {
        const angle = (Math.PI * 2 ** k * time) / T;
        rows[at + 2 + k] = Math.cos(angle);
        rows[at + 2 + FEATURES / 2 + k] = Math.sin(angle);
      }
      const kind = typeof classes === "number" ? classes : classes[b];
      if (kind >= 0) rows[at + 2 + FEATURES + kind] = 1;
    }
    return rows;
  }

  // before[l]: sums of layer l; after[l]: its inputs. Between layers stands SiLU, z / (1 + e⁻ᶻ).
  function forward(rows) {
    const before = [];
    const after = [rows];
    for (let l = 0; l < weights.length; l++) {
      before.push(linear(after[l], weights[l], biases[l], sizes[l], sizes[l + 1]));
      if (l + 1 < weights.length) after.push(before[l].map((z) => z / (1 + Math.exp(-z))));
    }
    return { before, after };
  }

  // Gradients of the weights and biases, in their order, from that of the output.
  function backward({ before, after }, ofOutput) {
    const gradients = [];
    let d = ofOutput;
    for (let l = weights.length - 1; l >= 0; l--) {
      gradients.unshift(...outer(d, after[l], sizes[l], sizes[l + 1]));
      if (l === 0) break;
      const below = transposed(d, weights[l], sizes[l], sizes[l + 1]);
      const z = before[l - 1];
      for (let i = 0; i < z.length; i++) {
        const gate = 1 / (1 + Math.exp(-z[i]));
        below[i] *= gate * (1 + z[i] * (1 - gate));
      }
      d = below;
    }
    return gradients;
  }

  return {
    parameters: () => weights.flatMap((w, l) => [w, biases[l]]),
    output: (x, t, classes = -1) => forward(inputs(x, t, classes)).before.at(-1),
    // Mean squared error over the batch of each point's mean over x and y, and its gradient.
    lossAndGradients(x, t, classes, target) {
      const passed = forward(inputs(x, t, classes));
      const error = passed.before.at(-1).map((y, i) => y - target[i]);
      const n = x.length / 2;
      const each = Float64Array.from({ length: n }, (_, b) => (error[2 * b] ** 2 + error[2 * b + 1] ** 2) / 2);
      return { each, gradients: backward(passed, error.map((e) => e / n)) };
    },
  };
}

function linear(rows, weight, bias, inside, outside) {
  const n = rows.length / inside;
  const result = new Float64Array(n * outside);
  for (let b = 0; b < n; b++) {
    for (let o = 0; o < outside; o += 2) { // two sums at a time: a processor can do both at once
      let one = bias[o];
      let two = bias[o + 1];
      for (let i = 0, w = o * inside, r = b * inside; i < inside; i++, w++) {
        one += weight[w] * rows[r + i];
        two += weight[w + inside] * rows[r + i];
      }
      result[b * outside + o] = one;
      result[b * outside + o + 1] = two;
    }
  }
  return result;
}

// d (n × outside) times the weights (outside × inside).
function transposed(d, weight, inside, outside) {
  const n = d.length / outside;
  const result = new Float64Array(n * inside);
  for (let b = 0; b < n; b++) {
    for (let o = 0; o < outside; o += 2) {
      const [one, two] = [d[b * outside + o], d[b * outside + o + 1]];
      for (let i = 0, w = o * inside, r = b * inside; i < inside; i++, w++) {
        result[r + i] += one * weight[w] + two * weight[w + inside];
      }
    }
  }
  return result;
}

// [gradient of the weights, of the biases] of one layer.
function outer(d, rows, inside, outside) {
  const ofWeight = new Float64Array(outside * inside);
  const ofBias = new Float64Array(outside);
  for (let b = 0; b < d.length / outside; b += 2) {
    const [r, below] = [b * inside, (b + 1) * inside];
    for (let o = 0; o < outside; o++) {
      const one = d[b * outside + o];
      const two = d[(b + 1) * outside + o] ?? 0; // after an odd last one there is none
      ofBias[o] += one + two;
      for (let i = 0, w = o * inside; i < inside; i++, w++) {
        ofWeight[w] += one * rows[r + i] + two * (rows[below + i] ?? 0);
      }
    }
  }
  return [ofWeight, ofBias];
}

// Adam (Kingma & Ba 2015), as in PyTorch; such small networks bear a large rate.
function adam(parameters, rate = 1e-2, [beta1, beta2] = [0.9, 0.999], eps = 1e-8) {
  const first = parameters.map((p) => new Float64Array(p.length));
  const second = parameters.map((p) => new Float64Array(p.length));
  let steps = 0;
  return function step(gradients, factor = 1) {
    steps++;
    const size = (rate * factor) / (1 - beta1 ** steps);
    const root = Math.sqrt(1 - beta2 ** steps);
    parameters.forEach((parameter, k) => {
      const [m, v, g] = [first[k], second[k], gradients[k]];
      for (let i = 0; i < parameter.length; i++) {
        m[i] += (1 - beta1) * (g[i] - m[i]);
        v[i] += (1 - beta2) * (g[i] * g[i] - v[i]);
        parameter[i] -= (size * m[i]) / (Math.sqrt(v[i]) / root + eps);
      }
    });
  };
}

const BATCH = 64;
const BINS = 20; // of t, for the curve of losses
const FADE = 0.99; // of what these know, with every update
const UPDATES = 4000;

// Trains on (points, classes) as NetworkDenoiser.loss says; one call of step() is one update. Half of the
// examples lose their class, so that the network can be asked without one too.
function trainer(schedule, points, classes, predictionType, source) {
  const network = toyNetwork(schedule.T, source);
  const update = adam(network.parameters());
  const losses = new Float64Array(BINS);
  const seen = new Float64Array(BINS); // how many examples each loss is the mean of; old ones fade
  const self = { network, losses, updates: 0, step };

  function step() {
    const batch = examples(schedule, points, classes, BATCH, source);
    const told = batch.classes.map((kind) => (source.uniform() < 0.5 ? kind : -1));
    const target = targets(schedule, batch, predictionType);
    const { each, gradients } = network.lossAndGradients(batch.x, batch.t, told, target);
    update(gradients, Math.max(0.02, 1 - self.updates / UPDATES)); // smaller and smaller steps
    self.updates++;
    for (let k = 0; k < BINS; k++) seen[k] *= FADE;
    each.forEach((loss, b) => {
      if (told[b] >= 0) return; // the curve is of those without a class: to know it makes it easier
      const k = Math.floor(((batch.t[b] - 1) * BINS) / schedule.T);
      seen[k]++;
      losses[k] += (loss - losses[k]) / seen[k];
    });
  }
  return self;
}

// n noisy examples: points drawn with replacement, timesteps in 1 … T (or the one given), noise.
function examples(schedule, points, classes, n, source, draw = () => 1 + Math.floor(source.uniform() * schedule.T)) {
  const chosen = Int32Array.from({ length: n }, () => Math.floor((source.uniform() * points.length) / 2));
  const t = Int32Array.from({ length: n }, draw);
  const eps = source.normals(2 * n);
  const x0 = eps.map((_, i) => points[2 * chosen[i >> 1] + (i % 2)]);
  const x = eps.map((e, i) => schedule.alpha[t[i >> 1]] * x0[i] + schedule.sigma[t[i >> 1]] * e);
  return { x, x0, eps, t, classes: Int8Array.from(chosen, (i) => classes[i]) };
}

function targets(schedule, { x0, eps, t }, predictionType) {
  return eps.map((e, i) => {
    const time = t[i >> 1];
    const [a, b] = MIXING[predictionType](schedule.alpha[time], schedule.sigma[time]);
    return a * x0[i] + b * e;
  });
}

// The loss that the best denoiser has in a bin of t: nobody can do better without being told more.
function bestLoss(denoiser, points, classes, predictionType, bin, source, n = 256) {
  const { schedule } = denoiser;
  const inBin = () => 1 + Math.floor(((bin + source.uniform()) * schedule.T) / BINS);
  let sum = 0;
  for (let i = 0; i < n; i++) {
    const one = examples(schedule, points, classes, 1, source, inBin);
    const [x0, eps] = denoiser.estimate(one.x, one.t[0]);
    const wanted = targets(schedule, one, predictionType);
    const said = targets(schedule, { x0, eps, t: one.t }, predictionType);
    sum += ((wanted[0] - said[0]) ** 2 + (wanted[1] - said[1]) ** 2) / 2;
  }
  return sum / n;
}
