// Shared by the pages to play with: light or dark as the page around says, or else as the system does.
"use strict";

// changed() draws anew; it is called once at the start and whenever the theme changes.
function followTheme(changed) {
  const root = document.documentElement;
  const framed = window.self !== window.top;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  function theme() {
    let chosen = "";
    try {
      chosen = framed ? window.parent.document.documentElement.dataset.theme : "";
    } catch {
      // Opened from disk, a page may not look at the one around it.
    }
    root.dataset.theme = chosen || (dark.matches ? "dark" : "light");
    changed();
  }
  dark.addEventListener("change", theme);
  if (framed) {
    root.dataset.framed = "";
    try {
      new MutationObserver(theme).observe(window.parent.document.documentElement, { attributeFilter: ["data-theme"] });
    } catch {
      // as above
    }
  }
  theme();
}
