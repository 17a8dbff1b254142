// The dials of the chapters. An element of the class "dial" holds a still; where JavaScript runs, something to touch
// takes its place: recorded pictures with a slider (data-dial="NAME", of data.js beside this file), or a page to
// play with in a frame (data-page="FOLDER/PAGE.html", data-title, data-height). Without a network, too.
"use strict";

(() => {
  const here = document.currentScript.src.replace(/[^/]*$/, "");
  const dark = () => (document.documentElement.dataset.theme === "dark" ? "dark" : "light");

  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function instead(dial, ...elements) {
    const still = dial.querySelector("img");
    if (still) still.hidden = true;
    dial.prepend(...elements);
  }

  // ------------------------------------------------------------------------- recorded pictures

  function record(dial) {
    const { label, values, panels, says, start, size } = window.DIALS?.[dial.dataset.dial] ?? {};
    if (!values) return;
    const strip = new Image();
    strip.addEventListener("load", () => {
      const shown = make("b"); // no <output>: the label would belong to it
      const input = make("input", { type: "range", min: 0, max: values.length - 1, value: start });
      const pictures = panels.map((name) => {
        const canvas = make("canvas", { width: size, height: size });
        canvas.setAttribute("role", "img");
        const text = make("span");
        return { name, canvas, text, figure: make("figure", {}, canvas, make("figcaption", {}, make("b", { textContent: name }), text)) };
      });
      const below = make("p", { className: "dial-says" });
      function show() {
        const k = Number(input.value);
        shown.textContent = values[k];
        input.setAttribute("aria-valuetext", values[k]);
        pictures.forEach(({ name, canvas, text }, p) => {
          canvas.getContext("2d").drawImage(strip, p * size, k * size, size, size, 0, 0, size, size);
          canvas.setAttribute("aria-label", `${name || `picture ${p + 1}`}, ${label}: ${values[k]}`);
          if (says.length && says[k].length === panels.length) text.textContent = says[k][p];
        });
        if (says.length && says[k].length === 1) below.textContent = says[k][0];
      }
      input.addEventListener("input", show);
      show();
      instead(
        dial,
        make("label", {}, `${label}: `, shown, input),
        make("div", { className: "dial-row" }, ...pictures.map(({ figure }) => figure)),
        ...(says[0]?.length === 1 && panels.length > 1 ? [below] : []),
      );
    });
    strip.src = `${here}${dial.dataset.dial}.webp`;
  }

  // --------------------------------------------------------------------------- pages in frames

  function frame(dial) {
    const { page, title, height } = dial.dataset;
    const inner = make("iframe", { src: `${here}../${page}`, title: title ?? "", loading: "lazy" });
    inner.style.height = `${Number(height) || 480}px`;
    instead(dial, inner);
  }

  // A page in a frame says how high it is, and hears which theme is chosen.
  function hear({ source, data }) {
    const inner = [...document.querySelectorAll("iframe")].find((one) => one.contentWindow === source);
    if (!inner || !Number.isFinite(data?.height)) return;
    if (inner.closest(".dial:not([data-fixed])")) inner.style.height = `${Math.min(4000, Math.max(100, Math.ceil(data.height)))}px`;
    source.postMessage({ theme: dark() }, "*");
  }

  function themed() {
    for (const inner of document.querySelectorAll("iframe")) inner.contentWindow?.postMessage({ theme: dark() }, "*");
  }

  function begin() {
    document.querySelectorAll(".dial[data-page]").forEach(frame);
    const recorded = document.querySelectorAll(".dial[data-dial]");
    if (!recorded.length) return;
    const script = make("script", { src: `${here}data.js` });
    script.addEventListener("load", () => recorded.forEach(record));
    document.head.append(script);
  }

  // Tables that are too wide scroll in a box of the theme: the keyboard must reach it, too.
  function reachable() {
    for (const box of document.querySelectorAll(".pst-scrollable-table-container")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    }
  }

  window.addEventListener("load", reachable);
  window.addEventListener("message", hear);
  new MutationObserver(themed).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
