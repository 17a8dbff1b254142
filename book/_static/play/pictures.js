// The pictures on the page, and the walk that led to them: every step is kept and can be gone back to.
"use strict";

class Pictures {
  constructor(place, controls) {
    this.place = place;
    this.controls = controls; // { player, back, pause, forth, step, moment }
    this.frames = [];
    this.clock = 0;
    controls.back.addEventListener("click", () => this.go(this.at - 1));
    controls.forth.addEventListener("click", () => this.go(this.at + 1));
    controls.step.addEventListener("input", () => this.go(controls.step.value - 1));
    controls.pause.addEventListener("click", () => (this.moving ? this.hold() : this.play()));
  }

  // A new walk: so many pictures, steps, and whether x_t and the guess are seen side by side.
  begin({ count, steps, both }) {
    this.hold();
    Object.assign(this, { count, steps, both, frames: [], at: -1, following: true });
    const wanted = count * (both ? 2 : 1);
    if (this.place.querySelectorAll("canvas").length !== wanted) {
      this.place.replaceChildren();
      for (let i = 0; i < count; i++) {
        this.add("drawn glyph", both ? "x\u209C" : "");
        if (both) this.add("what the network takes it for", "the guess");
      }
    }
    this.place.classList.toggle("four", count > 1);
    this.controls.player.hidden = !both;
    this.controls.step.max = steps;
    this.name();
  }

  add(label, caption) {
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label);
    canvas.width = canvas.height = 64;
    figure.append(canvas);
    if (caption) {
      const text = document.createElement("figcaption");
      text.textContent = caption;
      figure.append(text);
    }
    this.place.append(figure);
  }

  // { t, x, x0 }: Float32Array in [-1, 1], one picture after another
  take(frame) {
    this.frames.push(frame);
    if (this.following) this.show(this.frames.length - 1);
    else this.name();
  }

  show(index) {
    const frame = this.frames[index];
    if (!frame) return;
    this.at = index;
    const canvases = this.place.querySelectorAll("canvas");
    const size = Math.sqrt(frame.x.length / this.count);
    for (let i = 0; i < this.count; i++) {
      const part = (values) => values.subarray(i * size * size, (i + 1) * size * size);
      if (this.both) paint(canvases[2 * i + 1], part(frame.x0), size);
      paint(canvases[this.both ? 2 * i : i], part(this.both ? frame.x : frame.x0), size);
    }
    this.name();
  }

  go(index) {
    this.hold();
    this.following = false;
    this.show(Math.min(Math.max(index, 0), this.frames.length - 1));
  }

  // On from here, or from the start if this is the end; a walk still being drawn is caught up with.
  play() {
    const complete = () => this.frames.length >= this.steps;
    if (complete() && this.at >= this.steps - 1) this.show(0);
    this.clock = setInterval(() => {
      if (this.at + 1 < this.frames.length) this.show(this.at + 1);
      else if (complete()) this.hold();
    }, 120);
    this.name();
  }

  hold() {
    clearInterval(this.clock);
    this.clock = 0;
    this.following = false;
    this.name();
  }

  get moving() {
    return this.clock !== 0 || (this.following && this.frames.length < this.steps);
  }

  get last() {
    return this.frames[this.frames.length - 1];
  }

  name() {
    const { pause, step, moment, back, forth } = this.controls;
    pause.textContent = this.moving ? "Pause" : "Play";
    step.value = this.at + 1;
    const frame = this.frames[this.at];
    moment.textContent = frame ? `${this.at + 1} of ${this.steps}, t = ${frame.t}` : "";
    step.setAttribute("aria-valuetext", moment.textContent);
    back.disabled = !(this.at > 0);
    forth.disabled = !(this.at + 1 < this.frames.length);
  }

  // One picture, or four as a sheet, each pixel `scale` times: promises a PNG file.
  png(scale = 4) {
    const size = Math.sqrt(this.last.x.length / this.count);
    const columns = this.count > 1 ? 2 : 1;
    const [one, sheet] = [document.createElement("canvas"), document.createElement("canvas")];
    sheet.width = columns * size * scale;
    sheet.height = (Math.ceil(this.count / columns) * size) * scale;
    const context = sheet.getContext("2d");
    context.imageSmoothingEnabled = false;
    for (let i = 0; i < this.count; i++) {
      paint(one, this.last.x.subarray(i * size * size, (i + 1) * size * size), size);
      const [left, top] = [i % columns, Math.floor(i / columns)].map((place) => place * size * scale);
      context.drawImage(one, left, top, size * scale, size * scale);
    }
    return new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
  }
}

// Values in [-1, 1] as greys, white = 1.
function paint(canvas, values, size) {
  if (canvas.width !== size) canvas.width = canvas.height = size;
  const picture = new ImageData(size, size);
  values.forEach((value, i) => {
    const grey = Math.round((value + 1) * 127.5);
    picture.data.set([grey, grey, grey, 255], 4 * i);
  });
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

// A recorded walk: a sheet with x_t above and the guess below, a column for each step.
async function replayed({ t, sheet }) {
  const image = new Image();
  image.src = sheet;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const part = (column, row) => {
    const { data } = context.getImageData(64 * column, 64 * row, 64, 64);
    return Float32Array.from({ length: 64 * 64 }, (_, i) => data[4 * i] / 127.5 - 1);
  };
  return t.map((time, i) => ({ t: time, x: part(i, 0), x0: part(i, 1) }));
}
