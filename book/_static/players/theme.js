// Shared by the pages to play with: light or dark as the page around says, or else as the system does.
"use strict";

// changed() draws anew; it is called once at the start and whenever the theme changes. The page around is told
// how high this one is, and may say its theme: opened from disk, pages cannot look at each other.
function followTheme(changed) {
  const root = document.documentElement;
  const framed = window.self !== window.top;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let told = "";
  function theme() {
    let chosen = "";
    try {
      chosen = framed ? window.parent.document.documentElement.dataset.theme : "";
    } catch {
      chosen = told;
    }
    root.dataset.theme = chosen || (dark.matches ? "dark" : "light");
    changed();
  }
  dark.addEventListener("change", theme);
  if (framed) {
    root.dataset.framed = "";
    window.addEventListener("message", ({ source, data }) => {
      if (source !== window.parent || !["light", "dark"].includes(data?.theme)) return;
      told = data.theme;
      theme();
    });
    const tell = () => window.parent.postMessage({ height: document.body.offsetHeight }, "*");
    new ResizeObserver(tell).observe(document.body);
    try {
      new MutationObserver(theme).observe(window.parent.document.documentElement, { attributeFilter: ["data-theme"] });
    } catch {
      // as above
    }
  }
  theme();
}
