// What the controls of the laboratory start with, and links that carry what they are set to.
"use strict";

const element = (id) => document.getElementById(id);
const number = (id) => Number(element(id).value);
const chosen = (id) => element(id).value;
const isBox = (control) => control.type === "checkbox";

const WHOLE = {
  shape: "spiral", count: 600, schedule: "cosine", t: 300, arrows: "score", density: 1, kind: -1, scale: 1,
  sampler: "ddim", steps: 20, walkers: 100, predicts: "flow",
};
// Small frames of the chapters (#view=NAME) show a part of the controls, and no pen.
const VIEWS = {
  noising: { parts: ["points", "noise"], schedule: "linear", t: 200, arrows: "none" },
  sampling: { parts: ["walk"], shape: "ring", schedule: "straight", arrows: "none", sampler: "ddpm", steps: 5, walkers: 300, walked: true },
  score: { parts: ["noise", "field"], shape: "groups", t: 400 },
  guidance: { parts: ["condition", "walk"], shape: "ring", kind: 1, scale: 3, arrows: "none", walked: true },
  flow: { parts: ["noise", "field", "walk"], shape: "moons", schedule: "straight", t: 500, arrows: "step", steps: 4 },
};

// A link may be damaged: what a control cannot be is passed over.
function setControl(control, value) {
  const text = String(value);
  if (isBox(control)) control.checked = text === "1";
  else if (control.type !== "range") control.value = [...control.options].some((o) => o.value === text) ? text : control.value;
  else if (text.trim() && Number.isFinite(Number(text))) control.value = text; // the control keeps to its range
}

// Set all controls by what stands behind # in the address; returns the view, {} for the whole laboratory.
function applyLink(hash) {
  const wanted = new URLSearchParams(hash.slice(1));
  const name = wanted.get("view") ?? "";
  const view = Object.hasOwn(VIEWS, name) ? VIEWS[name] : {};
  for (const part of document.querySelectorAll("[data-part]")) {
    const { part: it } = part.dataset;
    part.classList.toggle("away", Boolean(view.parts) && !view.parts.includes(it));
  }
  // On a page around this one, a finger that scrolls shall not draw.
  const scrolled = window.self !== window.top && window.matchMedia("(pointer: coarse)").matches;
  element("pen").value = view.parts || scrolled ? "off" : "0";
  for (const id of Object.keys(WHOLE)) {
    setControl(element(id), view[id] ?? WHOLE[id]);
    if (wanted.has(id)) setControl(element(id), wanted.get(id));
  }
  element("link").textContent = view.parts ? "Open the whole laboratory with this" : "Link to this setting";
  element("link").target = view.parts ? "_blank" : "";
  return view;
}

function linkHere() {
  const now = Object.keys(WHOLE).map((id) => [id, isBox(element(id)) ? Number(element(id).checked) : chosen(id)]);
  element("link").href = `${location.href.split("#")[0]}#${new URLSearchParams(now)}`;
}

for (const moment of ["pointerdown", "focus"]) element("link").addEventListener(moment, linkHere);
