// The laboratory: what stands in the controls decides what is computed, a little in every frame, and drawn.
"use strict";

(() => {
  const MOST = 2000; // points
  const FEET = 15; // arrows in a row
  const GROUP = 25; // walkers that take a step at a time: the page answers in between
  const STILL = window.matchMedia("(prefers-reduced-motion: reduce)");

  let data = { points: new Float64Array(0), classes: new Uint8Array(0) };
  let seed = 1;
  let eps = new Float64Array(0); // the noise of each point, the same at every t
  let exact = {}; // the ideal denoisers of all points and of each class
  let schedule = makeSchedule("straight");
  let walk = null;
  let training = null; // { trainer, running, best }
  let theme = {};
  let plain = false; // one colour, where classes play no part
  let cross = null; // where the keyboard is in the plane
  let kept = {}; // pictures that are still right, by what they show

  const say = (text) => {
    if (element("status").textContent !== text) element("status").textContent = text;
  };

  // ------------------------------------------------------------- what the controls stand for

  function newNoise() {
    eps = randomSource(seed + 1000).normals(2 * MOST);
  }

  function renewed() { // other points or another schedule: what was computed from them is gone
    schedule = makeSchedule(chosen("schedule"));
    const of = (kind) => idealDenoiser(schedule, data.points.filter((_, i) => kind < 0 || data.classes[i >> 1] === kind));
    exact = { [-1]: of(-1), 0: of(0), 1: of(1) };
    walk = null;
    forget();
    kept = {};
    request();
  }

  function shaped() {
    const make = SHAPES[chosen("shape")];
    if (make) data = make(number("count"), randomSource(seed));
    renewed();
  }

  const has = (kind) => kind < 0 || data.classes.includes(kind);

  // The class that is asked for, if there are points of it.
  function condition() {
    const kind = number("kind");
    return has(kind) ? kind : -1;
  }

  function exactDenoiser() {
    const kind = condition();
    return kind < 0 ? exact[-1] : guided(exact[kind], exact[-1], number("scale"));
  }

  function learntDenoiser() {
    const { network } = training.trainer;
    const asked = (kind) => networkDenoiser((x, t) => network.output(x, t, kind), schedule, training.predicts);
    const kind = condition();
    return kind < 0 ? asked(-1) : guided(asked(kind), asked(-1), number("scale"));
  }

  // --------------------------------------------------------------------------------- walks

  function startWalk(play) {
    if (!data.classes.length) return say("Draw some points first.");
    if (training) training.running = false;
    const grid = timesteps(schedule, number("steps"));
    const xT = randomSource(seed + 2).normals(2 * number("walkers"));
    const lane = (denoiser) => {
      const walks = [];
      for (let at = 0; at < xT.length; at += 2 * GROUP) {
        const part = xT.slice(at, at + 2 * GROUP);
        const source = randomSource(seed + 3 + at); // in both lanes the same fresh noise
        walks.push(sampleSteps(denoiser, part, chosen("sampler"), grid, () => source.normals(part.length)));
      }
      return { states: [xT], walks, coming: [] };
    };
    const lanes = [lane(exactDenoiser())];
    if (training) lanes.push(lane(learntDenoiser()));
    walk = { lanes, grid, place: 0, playing: play && !STILL.matches, toEnd: !play || STILL.matches, ready: false, before: 0 };
    element("place").max = grid.length - 1;
    say(number("kind") === condition() ? "Walking …" : "There are no points of this class: the walk is by all of them.");
    request();
  }

  function compute(until) {
    for (const lane of walk.lanes) {
      while (performance.now() < until && lane.states.length < walk.grid.length) {
        lane.coming.push(...lane.walks[lane.coming.length / (2 * GROUP)].next().value.x);
        if (lane.coming.length === lane.states[0].length) lane.states.push(Float64Array.from(lane.coming.splice(0)));
      }
    }
    walk.ready = walk.lanes.every((lane) => lane.states.length === walk.grid.length);
    if (walk.ready && walk.toEnd) arrive();
  }

  function play(now) {
    const last = walk.grid.length - 1;
    const reached = Math.min(...walk.lanes.map((lane) => lane.states.length)) - 1;
    const seconds = Math.min(0.1, (now - (walk.before || now)) / 1000);
    walk.before = now;
    walk.place = Math.min(reached, walk.place + seconds * Math.max(1.5, last / 4)); // four seconds for all of it
    if (walk.place === last) arrive();
  }

  function arrive() {
    const last = walk.grid.length - 1;
    walk.place = last;
    walk.playing = walk.toEnd = false;
    say(`Arrived after ${last} ${last === 1 ? "step" : "steps"}.`);
  }

  function dropWalk() {
    walk = null;
    request();
  }

  // ------------------------------------------------------------------------------ training

  function train() {
    if (!data.classes.length) return say("Draw some points first.");
    if (chosen("predicts") === "eps" && schedule.alpha[schedule.T] < 1e-6) {
      return say("On the straight line nothing of the data is left at t = T, so from eps no guess can be made: let it predict something else.");
    }
    walk = null;
    const predicts = chosen("predicts");
    training ??= {
      trainer: trainer(schedule, data.points, data.classes, predicts, randomSource(seed + 4)),
      predicts,
      best: Array(BINS).fill(NaN),
      source: randomSource(seed + 5),
    };
    training.running = !training.running && training.trainer.updates < UPDATES;
    say(training.running ? "Training …" : "Training stopped.");
    request();
  }

  function learn(until) {
    const { trainer: pupil, best } = training;
    const bin = best.findIndex(Number.isNaN);
    if (bin >= 0) best[bin] = bestLoss(exact[-1], data.points, data.classes, training.predicts, bin, training.source);
    if (!training.running) return;
    while (performance.now() < until && pupil.updates < UPDATES) pupil.step();
    if (pupil.updates === UPDATES) {
      training.running = false;
      say(`Trained: ${UPDATES.toLocaleString("en")} updates.`);
    }
  }

  function forget() {
    training = null;
    request();
  }

  // ------------------------------------------------------------------------------- drawing

  let waiting = false;
  let asked = false; // for a new picture, not only to go on computing
  let drawnIn = 0;
  function request() {
    asked = true;
    again();
  }
  function again() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(frame);
  }

  function frame(now) {
    waiting = false;
    const learning = training && (training.running || training.best.some(Number.isNaN));
    const quarter = Math.floor(now / 250); // of a second; while nothing but the network changes, that is often enough
    const same = quarter === drawnIn && !asked;
    if (learning) learn(performance.now() + 20);
    if (walk && !walk.ready) compute(performance.now() + 10);
    if (walk && walk.playing) play(now);
    if (walk) element("t").value = walk.grid[Math.floor(walk.place)];
    if (!(same && training?.running)) draw(quarter);
    drawnIn = quarter;
    asked = false;
    show();
    if (learning || (walk && (walk.playing || !walk.ready))) again();
  }

  // make() anew only if what it depends on is not what it was.
  function cached(name, key, make) {
    if (kept[name]?.key !== key) kept[name] = { key, value: make() };
    return kept[name].value;
  }

  function fieldOf(denoiser, t) {
    const feet = new Float64Array(2 * FEET * FEET);
    for (let i = 0; i < FEET * FEET; i++) {
      feet[2 * i] = (((i % FEET) + 0.5) / FEET) * 2 * REACH - REACH;
      feet[2 * i + 1] = ((Math.floor(i / FEET) + 0.5) / FEET) * 2 * REACH - REACH;
    }
    const [x0, noise] = denoiser.estimate(feet, t);
    const { alpha, sigma } = schedule;
    const [byX0, byNoise] = [alpha[t - 1] - alpha[t], sigma[t - 1] - sigma[t]]; // a step of ddim from t to t − 1
    const arrows = {
      score: () => noise.map((e) => -e / sigma[t]),
      guess: () => x0.map((value, i) => value - feet[i]),
      step: () => x0.map((value, i) => byX0 * value + byNoise * noise[i]),
    }[chosen("arrows")]();
    return { feet, arrows };
  }

  function draw(quarter) {
    const t = number("t");
    const kind = condition();
    const some = data.classes.length > 0;
    const classes = plain ? data.classes.map(() => 0) : data.classes;
    const shown = { cloud: { points: addNoise(schedule, data.points, eps, t), classes }, cross };
    if (some && t > 0 && element("density").checked) {
      const n = schedule.sigma[t] > 0.4 ? 36 : 72; // what is smooth needs no fine lattice
      const points = kind < 0 ? data.points : data.points.filter((_, i) => data.classes[i >> 1] === kind);
      shown.heat = cached("heat", `${t} ${kind}`, () => heat(densityGrid(schedule, points, t, REACH, n), n, theme));
    }
    const arrows = chosen("arrows");
    const key = `${t} ${kind} ${chosen("scale")} ${arrows}`;
    const drawn = some && t > 0 && arrows !== "none";
    const walkOf = (lane) => walk && { states: walk.lanes[lane].states, place: walk.place };
    const field = drawn && cached("exact", key, () => fieldOf(exactDenoiser(), t));
    drawPlane(element("exact"), { ...shown, field, walk: walkOf(0) }, theme);
    if (!training) return;
    const state = training.running ? quarter : `after ${training.trainer.updates}`;
    const learnt = drawn && cached("learnt", `${key} ${state}`, () => fieldOf(learntDenoiser(), t));
    drawPlane(element("learnt"), { ...shown, field: learnt, walk: walk && walk.lanes[1] ? walkOf(1) : null }, theme);
    drawLosses(element("curve"), training.trainer.updates ? training.trainer.losses : [], training.best, schedule.T, theme);
  }

  function legend(t) {
    const arrows = chosen("arrows");
    const seen = [t > 0 ? "Dots: the points with noise" : "Dots: the points"];
    if (t > 0 && element("density").checked) seen.push(condition() < 0 ? "shade: their density" : "shade: the density of the class");
    if (t > 0 && arrows !== "none") seen.push(`arrows: ${element("arrows").selectedOptions[0].text}`);
    if (walk) seen.push("with trails: the walkers");
    return `${seen.join("; ")}.`;
  }

  const set = (id, text) => {
    if (element(id).textContent !== text) element(id).textContent = text;
  };

  function show() {
    const t = number("t");
    set("exactName", `Exact field. ${legend(t)}`);
    set("countShown", data.classes.length.toLocaleString("en"));
    set("tShown", String(t));
    set("amounts", `α ${schedule.alpha[t].toFixed(2)}, σ ${schedule.sigma[t].toFixed(2)}`);
    for (const id of ["scale", "steps", "walkers"]) set(`${id}Shown`, chosen(id));
    element("scale").disabled = number("kind") < 0;
    element("pause").disabled = element("place").disabled = !walk;
    set("pause", walk && !walk.playing && walk.place < walk.grid.length - 1 ? "Go on" : "Pause");
    if (walk) element("place").value = Math.floor(walk.place);
    set("placeShown", walk ? `${Math.floor(walk.place)} of ${walk.grid.length - 1}` : "–");
    element("place").setAttribute("aria-valuetext", walk ? `step ${Math.floor(walk.place)} of ${walk.grid.length - 1}` : "no walk");
    element("forget").disabled = !training;
    for (const id of ["beside", "losses"]) {
      if (element(id).hidden === Boolean(training)) {
        element(id).hidden = !training;
        request(); // its canvas has a size only now
      }
    }
    set("train", training?.running ? "Stop" : training && training.trainer.updates < UPDATES ? "Go on" : "Train");
    element("train").disabled = training?.trainer.updates === UPDATES;
    if (training) set("learntName", `Network after ${training.trainer.updates.toLocaleString("en")} updates.`);
  }

  // --------------------------------------------------------------------------- the controls

  element("shape").addEventListener("change", shaped);
  element("count").addEventListener("input", shaped);
  element("schedule").addEventListener("change", renewed);
  element("predicts").addEventListener("change", forget);
  for (const id of ["t", "kind", "scale", "sampler", "steps", "walkers"]) element(id).addEventListener("input", dropWalk);
  for (const id of ["arrows", "density"]) element(id).addEventListener("input", request);
  element("walk").addEventListener("click", () => startWalk(true));
  element("train").addEventListener("click", train);
  element("forget").addEventListener("click", forget);
  element("side").addEventListener("submit", (event) => event.preventDefault());
  element("pause").addEventListener("click", () => {
    walk.toEnd = false;
    walk.playing = !walk.playing && walk.place < walk.grid.length - 1;
    walk.before = 0;
    request();
  });
  element("place").addEventListener("input", () => {
    walk.playing = walk.toEnd = false;
    walk.place = Math.min(number("place"), ...walk.lanes.map((lane) => lane.states.length - 1));
    request();
  });
  element("again").addEventListener("click", () => {
    seed++;
    newNoise();
    dropWalk();
  });

  // ------------------------------------------------------------------------- drawing points

  function setPoints(points, classes) {
    data = { points: Float64Array.from(points), classes: Uint8Array.from(classes) };
    element("shape").value = "own";
    renewed();
  }

  function touch(x, y) {
    const pen = chosen("pen");
    const { points, classes } = data;
    if (pen === "erase") {
      const stays = Array.from(classes, (_, i) => Math.hypot(points[2 * i] - x, points[2 * i + 1] - y) > 0.2);
      setPoints(points.filter((_, i) => stays[i >> 1]), classes.filter((_, i) => stays[i]));
    } else if (classes.length >= MOST) {
      say(`${MOST.toLocaleString("en")} points are the most.`);
    } else {
      if (number("t") > 0) element("t").value = 0; // one draws data, not noisy data
      setPoints([...points, x, y], [...classes, Number(pen)]);
    }
  }

  const canvas = element("exact");
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const unit = box.width / (2 * REACH);
    return [(event.clientX - box.left) / unit - REACH, REACH - (event.clientY - box.top) / unit];
  };
  let last = null; // where the pen was
  const drawing = () => chosen("pen") !== "off";

  canvas.addEventListener("pointerdown", (event) => {
    if (!drawing() || event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    touch(...last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last || !canvas.hasPointerCapture(event.pointerId)) return;
    const now = place(event);
    if (Math.hypot(now[0] - last[0], now[1] - last[1]) < 0.07) return;
    last = now;
    touch(...now);
  });
  canvas.addEventListener("lostpointercapture", () => (last = null));
  canvas.addEventListener("keydown", (event) => {
    if (!drawing() || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!by && event.key !== " ") return;
    event.preventDefault();
    cross ??= [0, 0];
    if (by) cross = cross.map((value, i) => Math.max(-REACH, Math.min(REACH, value + 0.15 * by[i])));
    else touch(...cross);
    say(`${cross.map((value) => value.toFixed(1)).join(", ")}; ${data.classes.length} points`);
    request();
  });
  canvas.addEventListener("blur", () => {
    cross = null;
    request();
  });
  function penned() {
    canvas.classList.toggle("drawing", drawing());
    canvas.tabIndex = drawing() ? 0 : -1;
  }
  element("pen").addEventListener("change", penned);
  element("clear").addEventListener("click", () => setPoints([], []));

  // --------------------------------------------------------------------------------- start

  function start() {
    const view = applyLink(location.hash);
    plain = Boolean(view.parts) && !view.parts.includes("condition");
    penned();
    newNoise();
    shaped();
    if (view.walked) startWalk(false);
  }

  window.addEventListener("hashchange", start);
  new ResizeObserver(request).observe(element("planes"));
  start();
  followTheme(() => {
    theme = colours();
    kept = {};
    request();
  });
})();
