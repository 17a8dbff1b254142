// The noise of picture i of a seed, number for number what `minidiff sample --seed` starts from:
// Python's random.Random(repr((seed, i))) gives 32 bits, torch.Generator takes them as its seed, and
// torch.randn draws. Both generators are the Mersenne twister (Matsumoto & Nishimura 1998).
"use strict";

// ---------------------------------------------------------------------- the Mersenne twister

class Twister {
  constructor(seed) {
    const state = new Uint32Array(624);
    state[0] = seed;
    for (let j = 1; j < 624; j++) state[j] = Math.imul(1812433253, state[j - 1] ^ (state[j - 1] >>> 30)) + j;
    this.state = state;
    this.next = 624;
  }

  // From several words, as Python seeds it from a text.
  static ofWords(words) {
    const twister = new Twister(19650218);
    const s = twister.state;
    const mixed = (i) => s[i - 1] ^ (s[i - 1] >>> 30);
    let i = 1;
    const turn = () => {
      if (++i >= 624) {
        s[0] = s[623];
        i = 1;
      }
    };
    for (let k = Math.max(624, words.length), j = 0; k; k--) {
      s[i] = (s[i] ^ Math.imul(mixed(i), 1664525)) + words[j] + j;
      turn();
      j = (j + 1) % words.length;
    }
    for (let k = 623; k; k--) {
      s[i] = (s[i] ^ Math.imul(mixed(i), 1566083941)) - i;
      turn();
    }
    s[0] = 0x80000000;
    return twister;
  }

  // 32 random bits
  bits() {
    const s = this.state;
    if (this.next === 624) {
      for (let k = 0; k < 624; k++) {
        const y = (s[k] & 0x80000000) | (s[(k + 1) % 624] & 0x7fffffff);
        s[k] = s[(k + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      this.next = 0;
    }
    let y = s[this.next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  // Standard normal numbers, as torch.randn draws them: sixteen at a time, by the Box-Muller
  // transform of eight pairs. `count` is a multiple of 16.
  normal(count) {
    const drawn = new Float32Array(count);
    for (let i = 0; i < count; i++) drawn[i] = (this.bits() & 0xffffff) / 0x1000000;
    for (let block = 0; block < count; block += 16) {
      for (let j = block; j < block + 8; j++) {
        const radius = Math.sqrt(-2 * Math.log(1 - drawn[j]));
        const angle = 2 * Math.PI * drawn[j + 8];
        drawn[j] = radius * Math.cos(angle);
        drawn[j + 8] = radius * Math.sin(angle);
      }
    }
    return drawn;
  }
}

// ------------------------------------------------------------------------------------ SHA-512
// crypto.subtle is not there on every page that is served without https.

const WORD = (1n << 64n) - 1n;

// The first 64 bits behind the point of the square or cube roots of the first primes.
function fractions(count, power) {
  const found = [];
  for (let p = 2n; found.length < count; p++) {
    let prime = true;
    for (let q = 2n; q * q <= p; q++) prime &&= p % q !== 0n;
    if (!prime) continue;
    const wanted = p << (64n * power);
    let low = 0n;
    for (let bit = 1n << 68n; bit; bit >>= 1n) if ((low + bit) ** power <= wanted) low += bit;
    found.push(low & WORD);
  }
  return found;
}

let TABLES = null;

// Uint8Array (at most 111 bytes) to Uint8Array (64)
function sha512(bytes) {
  TABLES ??= { start: fractions(8, 2n), round: fractions(80, 3n) };
  const block = new Uint8Array(128);
  block.set(bytes);
  block[bytes.length] = 0x80;
  const view = new DataView(block.buffer);
  view.setUint32(124, bytes.length * 8);
  const turned = (x, n) => ((x >> n) | (x << (64n - n))) & WORD;
  const w = Array.from({ length: 16 }, (_, i) => view.getBigUint64(8 * i));
  for (let i = 16; i < 80; i++) {
    const [x, y] = [w[i - 15], w[i - 2]];
    const s0 = turned(x, 1n) ^ turned(x, 8n) ^ (x >> 7n);
    const s1 = turned(y, 19n) ^ turned(y, 61n) ^ (y >> 6n);
    w.push((w[i - 16] + s0 + w[i - 7] + s1) & WORD);
  }
  let [a, b, c, d, e, f, g, h] = TABLES.start;
  for (let i = 0; i < 80; i++) {
    const one = h + (turned(e, 14n) ^ turned(e, 18n) ^ turned(e, 41n)) + ((e & f) ^ (~e & WORD & g)) + TABLES.round[i] + w[i];
    const two = (turned(a, 28n) ^ turned(a, 34n) ^ turned(a, 39n)) + ((a & b) ^ (a & c) ^ (b & c));
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) & WORD, c, b, a, (one + two) & WORD];
  }
  const digest = new DataView(new ArrayBuffer(64));
  [a, b, c, d, e, f, g, h].forEach((x, i) => digest.setBigUint64(8 * i, (TABLES.start[i] + x) & WORD));
  return new Uint8Array(digest.buffer);
}

// ------------------------------------------------------------------------------- its purpose

// As minidiff.samplers.seeded_generator(seed, i), or with a purpose in words as well:
// seededNoise(0, "second stage", 2).
function seededNoise(seed, ...purpose) {
  const parts = [seed, ...purpose].map((p) => (typeof p === "string" ? `'${p}'` : String(p)));
  const text = new TextEncoder().encode(`(${parts.join(", ")})`);
  const number = new Uint8Array(text.length + 64); // read as one number, the last byte the lowest
  number.set(text);
  number.set(sha512(text), text.length);
  number.reverse();
  const padded = new Uint8Array(4 * Math.ceil(number.length / 4));
  padded.set(number);
  const view = new DataView(padded.buffer);
  const words = Array.from({ length: padded.length / 4 }, (_, i) => view.getUint32(4 * i, true));
  return new Twister(Twister.ofWords(words).bits());
}
