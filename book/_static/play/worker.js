// What runs beside the page: the text encoder and the networks, in onnxruntime-web. Before this file
// stand the runtime's own script, noise.js, wordpiece.js and sampling.js; the page makes one worker
// of them all.
"use strict";

const networks = new Map(); // name -> { session, about }
const read = new Map(); // text -> what the encoder makes of it; the newest last
const REMEMBERED = 64;
let latest = 0; // the newest wish: older ones stop at their next step
let pieces = null;
let queue = Promise.resolve();

self.onmessage = ({ data }) => {
  if (data.job) latest = data.job;
  queue = queue.then(() => ACTIONS[data.kind](data)).catch((error) => {
    self.postMessage({ kind: "failed", job: data.job, why: String((error && error.message) || error) });
  });
};

const ACTIONS = {
  // The runtime; its loader is a module that it imports by itself.
  async start({ wasm, loader, threads, vocabulary }) {
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmBinary = await unpacked(wasm);
    ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([loader], { type: "text/javascript" })) };
    ort.env.logLevel = "error";
    pieces = new WordPiece(new TextDecoder().decode(await unpacked(vocabulary)));
    self.postMessage({ kind: "started" });
  },

  async open({ name, about, parts }) {
    const session = await ort.InferenceSession.create(await unpacked(parts), { executionProviders: ["wasm"] });
    networks.set(name, { session, about });
    self.postMessage({ kind: "opened", name });
  },

  stop() {},
  draw,
  sharpen,
};

async function unpacked(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// So that messages are heard between two steps.
const breath = () => new Promise((resume) => setTimeout(resume));

// ------------------------------------------------------------------------------------ the text

async function encoded(text) {
  const ids = pieces.read(text);
  const key = ids.join();
  let states = read.get(key);
  read.delete(key);
  if (!states) {
    const input = new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);
    states = ids.length ? (await networks.get("encoder").session.run({ ids: input })).states.data : new Float32Array();
  }
  read.set(key, states);
  if (read.size > REMEMBERED) read.delete(read.keys().next().value);
  return { ids, states };
}

// Texts side by side, one for each picture: { tokens, mask } of (B, n); blank ones are all masked.
function laidOut(texts, width) {
  const n = Math.max(1, ...texts.map((text) => text.ids.length));
  const tokens = new Float32Array(texts.length * n * width);
  const mask = new Uint8Array(texts.length * n);
  texts.forEach(({ ids, states }, row) => {
    tokens.set(states, row * n * width);
    mask.fill(1, row * n, row * n + ids.length);
  });
  return {
    tokens: new ort.Tensor("float32", tokens, [texts.length, n, width]),
    mask: new ort.Tensor("bool", mask, [texts.length, n]),
  };
}

// --------------------------------------------------------------------------------- the drawing

// { job, model, prompt, negative, seed, count, steps, guidance, sampler }
async function draw(wish) {
  const { session, about } = networks.get(wish.model);
  if (wish.job !== latest) return;
  const text = await encoded(wish.prompt);
  self.postMessage({ kind: "read", job: wish.job, ...noticed(wish.prompt, text) });
  const count = wish.count;
  const rows = (value) => Array.from({ length: count }, () => value);
  const scalar = (value) => new Float32Array(count).fill(value);
  const size = about.size ** 2;
  let ask;
  if (about.student) {
    const [low, high] = about.student.guidance;
    const told = laidOut(rows(text), about.width);
    const numbers = rows([(wish.guidance - low) / (high - low), 1 / wish.steps]).flat();
    told.numbers = new ort.Tensor("float32", Float32Array.from(numbers), [count, 2]);
    ask = async (x, t) => guess(x, await answer(session, about, x, scalar(t), told), t, about.T);
  } else {
    const negative = await encoded(wish.negative || "");
    const idle = wish.guidance === 1 || (!text.ids.length && !negative.ids.length);
    const told = laidOut(idle ? rows(text) : [...rows(text), ...rows(negative)], about.width);
    ask = async (x, t) => {
      if (idle) return clipped(guess(x, await answer(session, about, x, scalar(t), told), t, about.T), about.range);
      const [twice, times] = [new Float32Array(2 * x.length), new Float32Array(2 * count).fill(t)];
      twice.set(x);
      twice.set(x, x.length);
      const both = guess(twice, await answer(session, about, twice, times, told), t, about.T);
      const x0 = guided(both.subarray(0, x.length), both.subarray(x.length), wish.guidance);
      return clipped(x0, about.range);
    };
  }
  const sources = rows(0).map((_, i) => seededNoise(wish.seed, i));
  await follow(wish, about, ask, sources, { grid: timesteps(about.T, wish.steps, about.shift), sampler: wish.sampler }, size);
}

// A small picture (Float32Array in [-1, 1]) and the second stage: { job, image, seed, index }
async function sharpen(wish) {
  const { session, about } = networks.get("glyph128");
  if (wish.job !== latest) return;
  const [small, large] = [about.size / 2, about.size];
  const picture = new Float32Array(3 * large * large);
  for (let row = 0; row < large; row++) {
    for (let column = 0; column < large; column++) {
      const value = wish.image[(row >> 1) * small + (column >> 1)];
      picture[row * large + column] = (value - about.first.mean) / about.first.std;
    }
  }
  picture.fill(about.redrawn, 2 * large * large); // the plane before it, of added noise, stays 0
  const told = { picture: new ort.Tensor("float32", picture, [1, 3, large, large]) };
  const ask = async (x, t) =>
    clipped(guess(x, await answer(session, about, x, Float32Array.of(t), told), t, about.T), about.range);
  const sources = [seededNoise(wish.seed, "second stage", wish.index)];
  const grid = timesteps(about.T, about.steps, about.shift);
  await follow(wish, about, ask, sources, { grid, sampler: "dpmpp_2m" }, large * large);
}

async function answer(session, about, x, t, told) {
  const count = t.length;
  const asked = {
    x: new ort.Tensor("float32", x, [count, 1, about.size, about.size]),
    t: new ort.Tensor("float32", t, [count]),
    ...told,
  };
  return (await session.run(asked)).y.data;
}

async function follow(wish, about, ask, sources, how, size) {
  const noise = () => {
    const drawn = new Float32Array(sources.length * size);
    sources.forEach((source, i) => drawn.set(source.normal(size), i * size));
    return drawn;
  };
  const picture = (x) => x.map((value) => Math.min(Math.max(value * about.std + about.mean, -1), 1));
  const started = performance.now();
  for await (const step of walk({ ask, x: noise(), T: about.T, noise, ...how })) {
    await breath();
    if (wish.job !== latest) return;
    const frame = { kind: "frame", job: wish.job, index: step.index, t: step.t, x: picture(step.x), x0: picture(step.x0) };
    self.postMessage(frame, [frame.x.buffer, frame.x0.buffer]);
  }
  self.postMessage({ kind: "done", job: wish.job, milliseconds: performance.now() - started });
}

// What the encoder makes nothing of, as minidiff says it.
function noticed(prompt, text) {
  const foreign = Array.from(prompt).filter((c) => /\p{L}/u.test(c) && !/\p{Script=Latin}/u.test(c));
  // 244 Chinese characters are in its vocabulary, 金 (gold) among them.
  const strange = foreign.filter((c) => !CHINESE.test(c) || !pieces.numbers.has(c));
  return {
    foreign: strange.slice(0, 20).join(""),
    unknown: text.ids.length > 2 && text.ids.slice(1, -1).every((id) => id === pieces.unknown),
    longer: text.ids.length > 2 && pieces.longer,
    tokens: text.ids.length,
  };
}
