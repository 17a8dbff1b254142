// The page: what is asked for, when it is drawn, and what is said about it. All text that comes from
// outside is set as text, never as HTML.
"use strict";

(() => {
  const PAUSE = 200; // milliseconds without a key after which a word is drawn
  const MOST = 999999999; // of a seed
  const element = (id) => document.getElementById(id);
  const [word, radical, negative] = ["word", "radical", "negative"].map(element);
  const [steps, guidance, sampler, seed, four] = ["steps", "guidance", "sampler", "seed", "four"].map(element);
  const USUAL = { "glyph64-fast": { steps: 4, sampler: "ddim" }, glyph64: { steps: 20, sampler: "dpmpp_2m_sde" } };
  const SAMPLER_NAMES = { dpmpp_2m_sde: "DPM-Solver++ 2M, stochastic", dpmpp_2m: "DPM-Solver++ 2M", ddim: "DDIM", ddpm: "DDPM" };
  const LABELS = { "glyph64-fast": "glyph64-fast: 4 evaluations, as you type", glyph64: "glyph64: the whole way, step by step" };

  // ------------------------------------------------------------------------------ what is said

  const say = (text) => {
    if (element("status").textContent !== text) element("status").textContent = text;
  };
  const tell = (text, retry = false) => {
    element("notice").textContent = text;
    element("notice").hidden = !text;
    element("again").hidden = !retry;
  };
  const quoted = (text) => `“${text.length > 40 ? `${text.slice(0, 40)}…` : text}”`;

  if (!globalThis.PLAY) {
    say("not built");
    tell("The files that draw are not here. In a copy of the repository, make book builds them (without make: python tools/play/build_play.py).");
    for (const control of document.querySelectorAll("#wish :is(input, select, button)")) control.disabled = true;
    followTheme(() => {});
    return;
  }

  // ------------------------------------------------------------------------------- what there is

  const drawing = Object.keys(LABELS).filter((name) => PLAY.models[name]);
  for (const name of PLAY.radicals) radical.add(new Option(name, name));
  for (const name of drawing) {
    const label = document.createElement("label");
    const button = Object.assign(document.createElement("input"), { type: "radio", name: "network", value: name });
    button.checked = name === drawing[0];
    label.append(button, LABELS[name]);
    element("networks").append(label);
    button.addEventListener("change", () => {
      settle();
      wished();
    });
  }
  const network = () => document.querySelector("input[name=network]:checked").value;

  // The settings that a network has: a student knows few numbers of steps, and one sampler.
  function settle() {
    const { student } = PLAY.models[network()];
    const usual = USUAL[network()];
    steps.value = usual.steps;
    steps.max = student ? Math.max(...student.evaluations) : 200;
    guidance.value = 3;
    [guidance.min, guidance.max] = student ? student.guidance : [0, 20];
    sampler.replaceChildren();
    for (const [name, text] of Object.entries(SAMPLER_NAMES)) {
      if (!student || name === "ddim") sampler.add(new Option(text, name));
    }
    sampler.value = usual.sampler;
    negative.disabled = Boolean(student); // its guidance is built in
  }
  settle();

  const pictures = new Pictures(element("pictures"), {
    player: element("player"), back: element("back"), pause: element("pause"),
    forth: element("forth"), step: element("step"), moment: element("moment"),
  });
  const machine = new Machine(heard);
  const size = (count) => `${FILES.megabytes(count)} MB`;

  function cost() {
    const lacking = machine.lacks(network());
    const where = FILES.fromDisk ? "reads" : "loads";
    element("cost").textContent = lacking.length
      ? `The first word ${where} ${size(FILES.bytes(lacking))}: runtime, text encoder and network. ` +
        (FILES.fromDisk ? "They lie beside this page." : "The browser keeps them.") + " All is drawn in this page; no word leaves it."
      : "All is drawn in this page; no word leaves it.";
  }
  cost();

  // ------------------------------------------------------------------------------ what is wished

  // A number of a field, or of what it should have been, and a remark.
  function whole(input, name, low, high, usual) {
    const value = Number(input.value);
    if (input.value !== "" && Number.isInteger(value) && value >= low && value <= high) return value;
    tell(`${name} must be a whole number from ${low} to ${high.toLocaleString("en")}: ${usual} is taken.`);
    return usual;
  }

  function wish() {
    tell("");
    const about = PLAY.models[network()];
    const name = radical.value && `${radical.value} radical`;
    const text = word.value.trim();
    let asked = whole(steps, "Steps", 1, 200, USUAL[network()].steps);
    if (about.student && !about.student.evaluations.includes(asked)) {
      tell(`This network draws in ${about.student.evaluations.join(", ")} steps: 4 are taken.`);
      asked = 4;
    }
    const scale = Number(guidance.value);
    const fits = guidance.value !== "" && scale >= Number(guidance.min) && scale <= Number(guidance.max);
    if (!fits) tell(`Guidance must be a number from ${guidance.min} to ${guidance.max}: 3 is taken.`);
    return {
      kind: "draw",
      model: network(),
      prompt: text && name ? `${text}, ${name}` : text || name,
      negative: negative.disabled ? "" : negative.value,
      steps: asked,
      guidance: fits ? scale : 3,
      sampler: sampler.value,
      seed: whole(seed, "Seed", 0, MOST, 0),
      count: four.checked ? 4 : 1,
    };
  }

  let clock = 0;
  let turn = 0; // of the newest wish: older ones end where they are
  let drawn = null; // what the pictures show: a wish, or { word } of a recorded one
  let noticed = "";

  // Something has changed: drawn after a pause, so that not every letter is.
  function wished(pause = PAUSE) {
    clearTimeout(clock);
    turn++;
    machine.stop();
    machine.told = heard;
    pictures.hold();
    element("took").textContent = "";
    const asked = wish();
    if (!asked.prompt) {
      say("ready");
      if (document.activeElement !== seed) tell("Type an English word, such as “gold”.");
      return;
    }
    say("drawing …");
    const mine = turn;
    clock = setTimeout(() => carryOut(asked, mine), pause);
  }

  async function carryOut(asked, mine) {
    try {
      await machine.prepare(asked.model, (loaded, of) => say(`loading … ${FILES.megabytes(loaded)} of ${size(of)}`));
      cost();
      if (mine !== turn) return;
      say("drawing …");
      noticed = element("notice").textContent;
      const both = asked.model !== "glyph64-fast";
      pictures.begin({ count: asked.count, steps: asked.steps, both });
      element("after").hidden = true; // until there is a whole picture
      drawn = asked;
      machine.send(asked);
    } catch (error) {
      if (mine === turn) failed(error.message);
    }
  }

  function failed(why) {
    say("stopped");
    tell(why, true);
  }

  // -------------------------------------------------------------------------- what is answered

  function heard(message) {
    if (message.kind === "failed") failed(message.why);
    if (message.kind === "read") {
      const said = [noticed];
      if (message.foreign) said.push(`The text encoder reads English: ${quoted(message.foreign)} tells it little or nothing.`);
      else if (message.unknown) said.push(`The text encoder reads English: it knows no word of ${quoted(drawn.prompt)}.`);
      if (message.longer) said.push("The text is longer than 32 tokens; its end is not read.");
      tell(said.filter(Boolean).join(" "));
    }
    if (message.kind === "frame") pictures.take(message);
    if (message.kind === "done") {
      finished(message.milliseconds);
      FILES.keepPage();
    }
  }

  function finished(milliseconds) {
    say("done");
    element("took").textContent = milliseconds === undefined ? "" : `in ${(milliseconds / 1000).toFixed(2)} s`;
    element("after").hidden = false;
    element("real").hidden = false;
    element("sharpen").hidden = !PLAY.models.glyph128 || pictures.last.x.length !== pictures.count * 64 * 64;
    element("link").href = address();
    if (element("real").open) compare();
  }

  // ----------------------------------------------------------------------------------- the rest

  async function sharpen() {
    clearTimeout(clock);
    machine.stop();
    machine.told = heard;
    const mine = ++turn;
    pictures.hold();
    const [small, count] = [pictures.last.x, pictures.count];
    const about = PLAY.models.glyph128;
    say("drawing …");
    try {
      await machine.prepare("glyph128", (loaded, of) => say(`loading … ${FILES.megabytes(loaded)} of ${size(of)}`));
      const started = performance.now();
      const large = new Float32Array(count * about.size ** 2);
      for (let index = 0; index < count && mine === turn; index++) {
        say("drawing …");
        const image = small.slice(index * 4096, (index + 1) * 4096);
        const walk = await enlarged({ kind: "sharpen", image, seed: drawn.seed ?? 0, index });
        large.set(walk.x, index * about.size ** 2);
      }
      if (mine !== turn) return;
      pictures.begin({ count, steps: 1, both: false });
      pictures.take({ t: 0, x: large, x0: large });
      finished(performance.now() - started);
    } catch (error) {
      if (mine === turn) failed(error.message);
    }
  }

  function enlarged(asked) {
    return new Promise((resolve, reject) => {
      let last = null;
      machine.told = (message) => {
        if (message.kind === "frame") last = message;
        else machine.told = heard;
        if (message.kind === "done") resolve(last);
        if (message.kind === "failed") reject(new Error(message.why));
      };
      machine.send(asked);
    });
  }

  async function play(name) {
    clearTimeout(clock);
    const mine = ++turn;
    machine.stop();
    machine.told = heard;
    tell("");
    word.value = name;
    radical.value = "";
    seed.value = 0;
    say("drawing …");
    const frames = await replayed(RECORDED[name]);
    if (mine !== turn) return;
    drawn = { recorded: name, prompt: name, seed: 0 };
    pictures.begin({ count: 1, steps: frames.length, both: true });
    pictures.following = false;
    frames.forEach((frame) => pictures.take(frame));
    finished();
    element("took").textContent = "recorded: glyph64 in 20 steps";
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) pictures.show(frames.length - 1);
    else {
      pictures.show(0);
      pictures.play();
    }
  }

  async function compare() {
    const mine = turn;
    const of = pictures.last.x.slice(0, pictures.last.x.length / pictures.count);
    element("nearest").textContent = "loading …";
    try {
      await NEAREST.ready((loaded, all) => (element("nearest").textContent = `loading … ${FILES.megabytes(loaded)} of ${size(all)}`));
    } catch (error) {
      element("nearest").textContent = error.message;
      return;
    }
    if (mine !== turn) return;
    element("nearest").textContent = "Of 20,509 real glyphs, these differ least from the first picture, at 16 × 16 pixels (0: the same, 2: white for black).";
    element("list").replaceChildren(...NEAREST.to(of).map(({ char, meaning, distance }) => {
      const line = document.createElement("li");
      const [glyph, text] = [document.createElement("b"), document.createElement("span")];
      glyph.lang = "zh";
      glyph.textContent = char;
      text.textContent = `${meaning} (${distance.toFixed(2)})`;
      line.append(glyph, text);
      return line;
    }));
  }

  async function save() {
    const link = document.createElement("a");
    const file = await pictures.png();
    const name = (drawn.prompt || "glyph").replace(/[^A-Za-z0-9]+/g, "-").slice(0, 40);
    link.download = `${name || "glyph"}-${drawn.seed}.png`;
    link.href = URL.createObjectURL(file);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  // -------------------------------------------------------------------------------- its address

  function address() {
    const told = new URLSearchParams({ word: word.value.trim().slice(0, 300), seed: seed.value });
    if (radical.value) told.set("radical", radical.value);
    if (network() !== drawing[0]) told.set("network", network());
    return `${location.href.split("#")[0]}#${told}`;
  }

  function follow() {
    const told = new URLSearchParams(location.hash.slice(1));
    if (!told.get("word") && !told.get("radical")) return;
    word.value = told.get("word") ?? "";
    radical.value = PLAY.radicals.includes(told.get("radical")) ? told.get("radical") : "";
    const button = document.querySelector(`input[name=network][value="${CSS.escape(told.get("network") ?? "")}"]`);
    if (button) button.checked = true;
    settle();
    const given = told.get("seed") ?? "0";
    const sound = /^\d{1,9}$/.test(given);
    seed.value = sound ? Number(given) : 0;
    wished(0);
    if (!sound) tell(`The link's seed ${quoted(given)} is no whole number from 0 to ${MOST.toLocaleString("en")}: 0 is taken.`);
  }

  // ------------------------------------------------------------------------------------ at last

  for (const name of Object.keys(globalThis.RECORDED ?? {})) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
    button.addEventListener("click", () => play(name));
    element("chips").append(button);
  }
  element("chips").hidden = !globalThis.RECORDED;
  element("wish").addEventListener("submit", (event) => {
    event.preventDefault();
    wished(0);
  });
  for (const input of [word, radical, negative, steps, guidance, sampler, seed, four]) input.addEventListener("input", () => wished());
  element("another").addEventListener("click", () => {
    seed.value = (Number(seed.value) || 0) + 1;
    wished(0);
  });
  element("again").addEventListener("click", () => wished(0));
  element("sharpen").addEventListener("click", sharpen);
  element("save").addEventListener("click", save);
  element("real").addEventListener("toggle", () => element("real").open && pictures.last && compare());
  window.addEventListener("hashchange", follow);
  followTheme(() => {});
  pictures.begin({ count: 1, steps: 1, both: false });
  FILES.tidy();
  follow();
})();
