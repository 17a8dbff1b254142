// What is drawn on the laboratory's canvases: a plane with density, points, arrows and walks; a curve of losses.
"use strict";

const REACH = 3; // the plane shown is −3 … 3 in both directions
const TRAILS = 40; // walkers whose way is drawn

function colours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["page", "text", "line", "hair", "blue", "orange", "deep", "arrow", "walker"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

// A pen whose unit is a pixel of the page; side lengths in pixels of the page, too.
function prepared(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const [w, h] = [width, height].map((side) => Math.round(side * devicePixelRatio));
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const pen = canvas.getContext("2d");
  pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

// The density, stretched over the plane from a small picture: the colour of the page to a strong blue.
function heat(grid, n, theme) {
  const small = document.createElement("canvas");
  small.width = small.height = n;
  const pen = small.getContext("2d");
  const picture = pen.createImageData(n, n);
  const [r, g, b] = channels(theme.deep);
  let most = 0;
  for (const value of grid) if (value > most) most = value;
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < n; column++) {
      const share = Math.sqrt(grid[(n - 1 - row) * n + column] / most); // the root shows the slopes, too
      picture.data.set([r, g, b, 150 * share], 4 * (row * n + column));
    }
  }
  pen.putImageData(picture, 0, 0);
  return small;
}

// scene: { heat, cloud: { points, classes }, field: { feet, arrows }, walk: { states, place, started }, cross }
function drawPlane(canvas, scene, theme) {
  const { pen, width } = prepared(canvas);
  const unit = width / (2 * REACH);
  const px = (x) => (x + REACH) * unit;
  const py = (y) => (REACH - y) * unit;
  if (scene.heat) {
    const cell = width / (scene.heat.width - 1); // lattice places lie in the middle of their pixels
    pen.imageSmoothingQuality = "high";
    pen.drawImage(scene.heat, -cell / 2, -cell / 2, width + cell, width + cell);
  }
  pen.strokeStyle = theme.hair;
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(0, py(0));
  pen.lineTo(width, py(0));
  pen.moveTo(px(0), 0);
  pen.lineTo(px(0), width);
  pen.stroke();
  if (scene.cloud) dots(pen, px, py, scene.cloud, theme, scene.walk ? 0.35 : 0.9);
  if (scene.field) arrowsOf(pen, px, py, unit, scene.field, theme);
  if (scene.walk) walkers(pen, px, py, scene.walk, theme);
  if (scene.cross) {
    const [x, y] = [px(scene.cross[0]), py(scene.cross[1])];
    pen.strokeStyle = theme.text;
    pen.lineWidth = 2;
    pen.beginPath();
    for (const [dx, dy] of [[9, 0], [0, 9]]) {
      pen.moveTo(x - dx, y - dy);
      pen.lineTo(x + dx, y + dy);
    }
    pen.stroke();
  }
}

function dots(pen, px, py, { points, classes }, theme, opacity) {
  const side = classes.length > 600 ? 2.5 : classes.length > 150 ? 3.5 : 5;
  pen.globalAlpha = opacity;
  for (const [kind, colour] of [theme.blue, theme.orange].entries()) {
    pen.fillStyle = colour;
    for (let i = 0; i < classes.length; i++) {
      if (classes[i] !== kind) continue;
      pen.fillRect(px(points[2 * i]) - side / 2, py(points[2 * i + 1]) - side / 2, side, side);
    }
  }
  pen.globalAlpha = 1;
}

// Lengths differ too much to be drawn as they are: as in the book, it is the root of the length.
function arrowsOf(pen, px, py, unit, { feet, arrows }, theme) {
  const roots = Float64Array.from({ length: feet.length / 2 }, (_, i) => Math.sqrt(Math.hypot(arrows[2 * i], arrows[2 * i + 1])));
  const longest = roots.reduce((a, b) => Math.max(a, b), 1e-12);
  const cell = (2 * REACH * unit) / Math.sqrt(roots.length);
  pen.strokeStyle = theme.arrow;
  pen.lineWidth = 1.4;
  pen.beginPath();
  roots.forEach((root, i) => {
    const length = (0.95 * cell * root) / longest;
    if (length < 1) return;
    const angle = Math.atan2(-arrows[2 * i + 1], arrows[2 * i]);
    const [x, y] = [px(feet[2 * i]), py(feet[2 * i + 1])];
    const [tipX, tipY] = [x + length * Math.cos(angle), y + length * Math.sin(angle)];
    pen.moveTo(x, y);
    pen.lineTo(tipX, tipY);
    const head = Math.min(5, 0.4 * length);
    for (const turn of [2.6, -2.6]) {
      pen.moveTo(tipX, tipY);
      pen.lineTo(tipX + head * Math.cos(angle + turn), tipY + head * Math.sin(angle + turn));
    }
  });
  pen.stroke();
}

// place is a number of steps; between two of them, a walker is drawn on the line from one to the next.
function walkers(pen, px, py, { states, place }, theme) {
  const whole = Math.min(Math.floor(place), states.length - 1);
  const [here, next] = [states[whole], states[Math.min(whole + 1, states.length - 1)]];
  const part = place - whole;
  const at = (i) => here[i] + part * (next[i] - here[i]);
  const count = here.length / 2;
  pen.strokeStyle = theme.walker;
  pen.globalAlpha = 0.45;
  pen.lineWidth = 1;
  pen.beginPath();
  for (let w = 0; w < Math.min(count, TRAILS); w++) {
    pen.moveTo(px(states[0][2 * w]), py(states[0][2 * w + 1]));
    for (let k = 1; k <= whole; k++) pen.lineTo(px(states[k][2 * w]), py(states[k][2 * w + 1]));
    pen.lineTo(px(at(2 * w)), py(at(2 * w + 1)));
  }
  pen.stroke();
  pen.globalAlpha = 1;
  pen.fillStyle = theme.walker;
  const radius = count > 100 ? 2.2 : 3.5;
  pen.beginPath();
  for (let w = 0; w < count; w++) {
    const [x, y] = [px(at(2 * w)), py(at(2 * w + 1))];
    pen.moveTo(x + radius, y);
    pen.arc(x, y, radius, 0, 7);
  }
  pen.fill();
}

// Losses of the network and of the best denoiser, one value for each bin of t; what is not known yet is NaN.
function drawLosses(canvas, losses, best, T, theme) {
  const { pen, width, height } = prepared(canvas);
  const [left, bottom, top] = [34, height - 22, 8];
  const known = [...losses, ...best].filter(Number.isFinite);
  const most = Math.max(0.1, ...known) * 1.05;
  const px = (t) => left + (t / T) * (width - left - 18);
  const py = (loss) => bottom - (loss / most) * (bottom - top);
  pen.font = "12px system-ui, sans-serif";
  pen.fillStyle = theme.text;
  pen.strokeStyle = theme.line;
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(left, top);
  pen.lineTo(left, bottom);
  pen.lineTo(width - 18, bottom);
  pen.stroke();
  pen.textAlign = "center";
  for (const t of [0, T / 4, T / 2, (3 * T) / 4, T]) pen.fillText(String(t), px(t), height - 6);
  pen.textAlign = "right";
  for (const share of [0, 0.5, 1]) pen.fillText((share * most).toFixed(1), left - 5, py(share * most) + (share === 1 ? 9 : 4));
  for (const [values, colour] of [[best, theme.blue], [losses, theme.orange]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.beginPath();
    let drawn = false;
    values.forEach((value, k) => {
      if (!Number.isFinite(value)) return;
      const x = px(((k + 0.5) * T) / values.length);
      if (drawn) pen.lineTo(x, py(value));
      else pen.moveTo(x, py(value));
      drawn = true;
    });
    pen.stroke();
  }
}
