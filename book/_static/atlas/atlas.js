// The interactive map of all glyphs. Plain script, no library: it also works from a folder on disk.
"use strict";

(() => {
  const element = (id) => document.getElementById(id);
  const data = window.ATLAS;
  if (!data) {
    element("count").textContent = "data.js is missing beside this page.";
    return;
  }

  // ---------------------------------------------------------------------------- the data

  const chars = Array.from(data.chars);
  const total = chars.length;
  const definitions = data.definitions.split("\n");
  const lower = definitions.map((text) => text.toLowerCase());
  const radicals = Uint8Array.from(data.radicals, (sign) => sign.charCodeAt(0) - 0x100);
  const layouts = Uint8Array.from(data.layouts, Number);
  const bytes = Uint8Array.from(atob(data.points), (sign) => sign.charCodeAt(0));
  const points = new Float64Array(2 * total); // x, y, x, y, ...; y goes up
  let right = 0;
  let top = 0;
  for (let i = 0; i < 2 * total; i++) {
    points[i] = bytes[2 * i] + 256 * bytes[2 * i + 1];
    if (i % 2) top = Math.max(top, points[i]);
    else right = Math.max(right, points[i]);
  }
  const LAYOUTS = ["side by side", "stacked", "surround", "other"];
  const STRONG = 8; // what is found but has no colour of its own
  const FONT = '"Atlas glyphs", "Noto Sans SC", "Noto Sans CJK SC", sans-serif';
  const byCount = data.names.map((_, k) => k + 1).sort((a, b) => data.names[b - 1][2] - data.names[a - 1][2]);
  const radicalName = (number) => `${data.names[number - 1][0]} ${data.names[number - 1][1]}`;

  // ---------------------------------------------------------------------- what is shown

  const canvas = element("map");
  const pen = canvas.getContext("2d");
  const view = { x: 0, y: 0, k: 1 }; // the data point in the middle, and pixels per unit
  let width = 0;
  let height = 0;
  let whole = 1; // k at which all of the map is in sight
  let groups = new Int8Array(total); // colour of each glyph, -1: faint
  let entries = []; // of the legend
  let found = null; // Uint8Array while a word is searched
  let matches = [];
  let hovered = -1;
  let pinned = -1;

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const get = (name) => style.getPropertyValue(name).trim();
    return { list: Array.from({ length: 8 }, (_, k) => get(`--c${k}`)), faint: get("--faint"), text: get("--text"), page: get("--page") };
  }

  function recolour() {
    const choice = element("colour").value;
    if (choice === "layout") {
      groups = Int8Array.from(layouts);
      entries = LAYOUTS.map((name, k) => [name, k]);
    } else if (choice === "frequent") {
      const few = byCount.slice(0, 7);
      const slots = [0, 1, 2, 4, 5, 6, 7];
      groups = Int8Array.from(radicals, (number) => (few.includes(number) ? slots[few.indexOf(number)] : -1));
      entries = few.map((number, k) => [radicalName(number), slots[k]]);
    } else {
      const wanted = Number(choice);
      groups = Int8Array.from(radicals, (number) => (number === wanted ? 1 : -1));
      entries = [[radicalName(wanted), 1]];
    }
    legend();
    draw();
  }

  function legend() {
    const counts = new Map();
    groups.forEach((group) => counts.set(group, (counts.get(group) || 0) + 1));
    element("legend").replaceChildren(
      ...entries.map(([name, group]) => {
        const item = document.createElement("span");
        const dot = document.createElement("i");
        dot.style.background = `var(--c${group})`;
        item.append(dot, `${name} (${(counts.get(group) || 0).toLocaleString("en")})`);
        return item;
      })
    );
  }

  const screenX = (i) => (points[2 * i] - view.x) * view.k + width / 2;
  const screenY = (i) => height / 2 - (points[2 * i + 1] - view.y) * view.k;
  const inSight = (x, y) => x > -20 && y > -20 && x < width + 20 && y < height + 20;

  let waiting = false;
  function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      paint();
    });
  }

  function paint() {
    const { list, faint, text, page } = colours();
    const layers = new Map(); // group -> glyphs in sight; faint ones first
    let visible = 0;
    for (let i = 0; i < total; i++) {
      if (!inSight(screenX(i), screenY(i))) continue;
      let group = groups[i];
      if (found) group = found[i] ? (group < 0 ? STRONG : group) : -1;
      if (!layers.has(group)) layers.set(group, []);
      layers.get(group).push(i);
      visible++;
    }
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, width, height);
    // Near enough, the glyphs themselves stand in place of the points.
    const asText = view.k > 4 * whole && visible < 900;
    const size = Math.max(13, Math.min(28, 0.5 * Math.sqrt((width * height) / Math.max(visible, 1))));
    const radius = Math.min(3.5, 0.9 * Math.sqrt(view.k / whole) * Math.sqrt(Math.min(width, height) / 500));
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    for (const group of [...layers.keys()].sort((a, b) => a - b)) {
      pen.fillStyle = group < 0 ? faint : group === STRONG ? text : list[group];
      const large = found && group >= 0 ? Math.max(radius, 2.5) : radius;
      pen.font = `${size}px ${FONT}`;
      for (const i of layers.get(group)) {
        if (asText) pen.fillText(chars[i], screenX(i), screenY(i));
        else if (large > 2) {
          pen.beginPath();
          pen.arc(screenX(i), screenY(i), large, 0, 7);
          pen.fill();
        } else pen.fillRect(screenX(i) - large, screenY(i) - large, 2 * large, 2 * large);
      }
    }
    const chosen = hovered >= 0 ? hovered : pinned;
    if (chosen >= 0) {
      const ring = asText ? 0.7 * size : Math.max(7, 2 * radius);
      for (const [stroke, line] of [[page, 5], [text, 2]]) {
        pen.strokeStyle = stroke;
        pen.lineWidth = line;
        pen.beginPath();
        pen.arc(screenX(chosen), screenY(chosen), ring, 0, 7);
        pen.stroke();
      }
    }
    showCard(chosen);
  }

  function describe(i) {
    return `${LAYOUTS[layouts[i]]}, radical ${radicals[i]}: ${radicalName(radicals[i])}`;
  }

  function showCard(i) {
    const card = element("card");
    card.hidden = i < 0 || !inSight(screenX(i), screenY(i));
    if (card.hidden) return;
    element("sign").textContent = chars[i];
    element("definition").textContent = definitions[i];
    element("facts").textContent = describe(i);
    const x = screenX(i);
    const y = screenY(i);
    const away = 24;
    let left = x + away;
    if (left + card.offsetWidth > width - 6) left = x - away - card.offsetWidth;
    let up = y - card.offsetHeight / 2;
    if (left < 6) {
      left = x - card.offsetWidth / 2; // no room at either side: above or below
      up = y > height / 2 ? y - away - card.offsetHeight : y + away;
    }
    left = Math.max(6, Math.min(left, width - 6 - card.offsetWidth));
    up = Math.max(6, Math.min(up, height - 6 - card.offsetHeight));
    card.style.transform = `translate(${Math.round(left)}px, ${Math.round(up)}px)`;
  }

  // ---------------------------------------------------------------------------- moving

  function clampView() {
    view.k = Math.max(0.7 * whole, Math.min(view.k, 150 * whole));
    view.x = Math.max(0, Math.min(view.x, right));
    view.y = Math.max(0, Math.min(view.y, top));
  }

  function showAll() {
    view.k = whole;
    view.x = right / 2;
    view.y = top / 2;
    draw();
  }

  function zoom(factor, x = width / 2, y = height / 2) {
    const before = view.k;
    view.k = Math.max(0.7 * whole, Math.min(view.k * factor, 150 * whole));
    view.x += (x - width / 2) * (1 / before - 1 / view.k); // what is under the pointer stays there
    view.y -= (y - height / 2) * (1 / before - 1 / view.k);
    clampView();
    draw();
  }

  function pan(dx, dy) {
    view.x -= dx / view.k;
    view.y += dy / view.k;
    clampView();
    draw();
  }

  function resize() {
    const box = canvas.getBoundingClientRect();
    const first = width === 0;
    width = box.width;
    height = box.height;
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(height * devicePixelRatio);
    const zoomed = view.k / whole;
    whole = 0.94 * Math.min(width / right, height / top);
    if (first) showAll();
    else view.k = zoomed * whole;
    paint(); // at once, for a canvas is empty after a change of its size
  }

  function nearest(x, y, reach) {
    let best = -1;
    let least = reach * reach;
    for (let i = 0; i < total; i++) {
      const dx = screenX(i) - x;
      const dy = screenY(i) - y;
      // While a word is searched, what it found goes first.
      const distance = (dx * dx + dy * dy) * (found && !found[i] ? 4 : 1);
      if (distance < least) {
        least = distance;
        best = i;
      }
    }
    return best;
  }

  function pin(i, speak) {
    pinned = i;
    hovered = -1;
    if (speak && i >= 0) element("spoken").textContent = `${chars[i]}: ${definitions[i]}; ${describe(i)}`;
    draw();
  }

  // --------------------------------------------------------------- mouse, touch, keyboard

  const fingers = new Map();
  let moved = 0;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (fingers.size === 0) moved = 0;
    fingers.set(event.pointerId, place(event));
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = fingers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") {
        const target = nearest(now.x, now.y, 14);
        if (target !== hovered) {
          hovered = target;
          draw();
        }
      }
      return;
    }
    moved += Math.abs(now.x - before.x) + Math.abs(now.y - before.y);
    const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, where]) => where);
    if (others.length === 1) {
      const [other] = others;
      const apart = (a) => Math.hypot(a.x - other.x, a.y - other.y) || 1;
      zoom(apart(now) / apart(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
      pan((now.x - before.x) / 2, (now.y - before.y) / 2);
    } else if (others.length === 0 && moved > 5) pan(now.x - before.x, now.y - before.y);
    fingers.set(event.pointerId, now);
  });
  canvas.addEventListener("pointerup", (event) => {
    const last = fingers.get(event.pointerId);
    fingers.delete(event.pointerId);
    if (last && moved <= 5 && fingers.size === 0) {
      pin(nearest(last.x, last.y, event.pointerType === "mouse" ? 14 : 30), false);
    }
  });
  canvas.addEventListener("pointercancel", (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => {
    hovered = -1;
    draw();
  });

  const framed = window.self !== window.top;
  let hintTimer = 0;
  canvas.addEventListener(
    "wheel",
    (event) => {
      // In a page of the book the wheel scrolls the page until the map has been clicked.
      if (framed && !event.ctrlKey && !event.metaKey && document.activeElement !== canvas) {
        element("hint").hidden = false;
        clearTimeout(hintTimer);
        hintTimer = setTimeout(() => (element("hint").hidden = true), 1500);
        return;
      }
      event.preventDefault();
      const { x, y } = place(event);
      const lines = event.deltaMode === 1 ? 30 : 1;
      zoom(Math.exp(-Math.max(-300, Math.min(300, event.deltaY * lines)) / 400), x, y);
    },
    { passive: false }
  );

  canvas.addEventListener("keydown", (event) => {
    const arrows = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (arrows[event.key]) {
      pan(...arrows[event.key]);
      pin(nearest(width / 2, height / 2, 1e9), true);
    } else if (event.key === "+" || event.key === "=") zoom(1.4);
    else if (event.key === "-") zoom(1 / 1.4);
    else if (event.key === "0") showAll();
    else if (event.key === "Escape") pin(-1, false);
    else return;
    event.preventDefault();
  });
  element("in").addEventListener("click", () => zoom(1.6));
  element("out").addEventListener("click", () => zoom(1 / 1.6));
  element("all").addEventListener("click", showAll);

  // ---------------------------------------------------------------------------- search

  const SHOWN = 60;
  let turn = -1;

  function search() {
    const text = element("word").value.trim().toLowerCase();
    matches = [];
    turn = -1;
    if (!text) found = null;
    else {
      const words = text.split(/[\s,;]+/).filter(Boolean);
      // the beginning of a word: "bird" finds "birds", but "art" does not find "heart"
      const patterns = words.map((word) => new RegExp(`(?:^|[^a-z0-9])${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}`));
      found = new Uint8Array(total);
      for (let i = 0; i < total; i++) {
        if (text.includes(chars[i]) || patterns.every((pattern) => pattern.test(lower[i]))) {
          found[i] = 1;
          matches.push(i);
        }
      }
      // First what means just that, and the common characters before the rare ones (below U+4E00).
      const rank = (i) => (lower[i] === text ? 0 : lower[i].startsWith(words[0]) ? 1 : 2) + (chars[i] < "\u4e00" ? 3 : 0);
      matches.sort((a, b) => rank(a) - rank(b) || a - b);
    }
    if (pinned >= 0 && found && !found[pinned]) pinned = -1;
    const all = `${total.toLocaleString("en")} glyphs`;
    const some = matches.length === 1 ? "1 glyph" : `${matches.length.toLocaleString("en")} glyphs`;
    element("count").textContent = found ? some : all;
    element("found").replaceChildren(
      ...matches.slice(0, SHOWN).map((i) => {
        const button = document.createElement("button");
        button.type = "button";
        button.lang = "zh";
        button.textContent = chars[i];
        button.title = definitions[i];
        button.addEventListener("click", () => goTo(i));
        return button;
      })
    );
    draw();
  }

  function goTo(i) {
    const x = screenX(i);
    const y = screenY(i);
    if (x < 20 || y < 20 || x > width - 20 || y > height - 20) {
      view.x = points[2 * i];
      view.y = points[2 * i + 1];
      clampView();
    }
    pin(i, true);
  }

  element("word").addEventListener("input", search);
  element("word").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !matches.length) return;
    event.preventDefault();
    turn = (turn + (event.shiftKey ? matches.length - 1 : 1)) % matches.length;
    goTo(matches[turn]);
  });

  // ---------------------------------------------------------------------------- begin

  const select = element("colour");
  select.append(new Option("by layout", "layout"), new Option("seven frequent radicals", "frequent"));
  const each = document.createElement("optgroup");
  each.label = "one radical";
  for (const number of byCount) {
    const count = data.names[number - 1][2];
    if (count) each.append(new Option(`${radicalName(number)} (${count})`, String(number)));
  }
  select.append(each);
  select.addEventListener("change", recolour);


  // A link may carry a word and a colour: index.html?word=bird&colour=196
  const asked = new URLSearchParams(location.search);
  if (asked.has("word")) element("word").value = asked.get("word");
  if ([...select.options].some((option) => option.value === asked.get("colour"))) select.value = asked.get("colour");

  followTheme(draw);
  recolour();
  new ResizeObserver(resize).observe(canvas);
  resize();
  search();
  if (asked.has("word") && matches.length) goTo(matches[0]);
  document.fonts.load(`20px ${FONT}`, chars[0]).then(draw, draw);
})();
