// Which real glyphs a drawing is like: both at 16 × 16 pixels, by the root mean square over them.
"use strict";

const NEAREST = (() => {
  const SIDE = 16;
  let table = null; // 16 greys, two pixels a byte, in the order of the atlas
  let loading = null;
  const names = ["real_glyphs"];
  const ready = (progress) => (loading ??= load(progress).finally(() => (loading = null)));

  async function load(progress) {
    if (!globalThis.ATLAS) await script("../atlas/data.js");
    if (table) return;
    const { real_glyphs: parts } = await FILES.load(names, progress);
    const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("gzip"));
    table = new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // A picture in [-1, 1] of any size that 16 divides, as 256 greys from 0 to 15.
  function small(picture) {
    const size = Math.sqrt(picture.length);
    const step = size / SIDE;
    const greys = new Float32Array(SIDE * SIDE);
    picture.forEach((value, i) => {
      const place = Math.floor(Math.floor(i / size) / step) * SIDE + Math.floor((i % size) / step);
      greys[place] += ((value + 1) * 7.5) / step ** 2;
    });
    return greys;
  }

  // [{ char, meaning, distance }], nearest first; a distance of 0 is the same, 2 is white for black
  function to(picture, count = 5) {
    const wanted = small(picture);
    const half = (SIDE * SIDE) / 2;
    const distances = new Float32Array(table.length / half);
    for (let glyph = 0; glyph < distances.length; glyph++) {
      let sum = 0;
      for (let i = 0; i < half; i++) {
        const pair = table[glyph * half + i];
        const [one, two] = [(pair >> 4) - wanted[2 * i], (pair & 15) - wanted[2 * i + 1]];
        sum += one * one + two * two;
      }
      distances[glyph] = Math.sqrt(sum / (SIDE * SIDE)) / 7.5;
    }
    const order = Array.from(distances.keys()).sort((a, b) => distances[a] - distances[b]);
    const [letters, meanings] = [Array.from(ATLAS.chars), ATLAS.definitions.split("\n")];
    return order.slice(0, count).map((i) => ({ char: letters[i], meaning: meanings[i], distance: distances[i] }));
  }

  return { ready, to };
})();
