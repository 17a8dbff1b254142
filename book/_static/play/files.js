// The large files: fetched with progress and kept, or, opened from disk, where nothing can be
// fetched, read from scripts that hold the same bytes as text.
"use strict";

const FILES = (() => {
  const fromDisk = location.protocol === "file:";
  const SILENCE = 30_000; // milliseconds without a byte after which a download has broken off
  const SHELF = "minidiff play";
  const here = new Map(); // part -> its bytes, until they are handed over
  const waiting = new Map(); // part -> who waits for its script

  const parts = (names) => names.flatMap((name) => PLAY.files[name]);
  const bytes = (names) => parts(names).reduce((sum, part) => sum + part.bytes, 0);
  const megabytes = (count) => (count / 1e6).toFixed(count < 1e7 ? 1 : 0);

  // Called by the scripts.
  globalThis.playPart = (name, text) => waiting.get(name)?.(text);

  function decoded(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const letters = atob(text);
    return Uint8Array.from({ length: letters.length }, (_, i) => letters.charCodeAt(i));
  }

  async function read(part) {
    const script = document.createElement("script");
    try {
      const text = await new Promise((resolve, reject) => {
        waiting.set(part.name, resolve);
        script.onerror = () => reject(new Error(`The file ${part.name}.js is missing beside this page.`));
        script.onload = () => reject(new Error(`The file ${part.name}.js is damaged.`)); // unless it has spoken
        script.src = `data/${part.name}.js`;
        document.head.append(script);
      });
      return decoded(text);
    } finally {
      waiting.delete(part.name);
      script.remove();
    }
  }

  // Where the browser has no such place, or no room in it, the files are simply fetched again.
  async function shelf() {
    try {
      return await caches.open(SHELF);
    } catch {
      return null;
    }
  }

  async function fetched(part, count) {
    const address = new URL(`data/${part.name}.bin`, location.href).href;
    const kept = await shelf();
    const found = await kept?.match(address).catch(() => null);
    if (found) {
      const whole = new Uint8Array(await found.arrayBuffer());
      if (whole.length === part.bytes) {
        count(whole.length);
        return whole;
      }
    }
    const ended = new AbortController();
    let clock = setTimeout(() => ended.abort(), SILENCE);
    const whole = new Uint8Array(part.bytes);
    let filled = 0;
    try {
      const response = await fetch(address, { signal: ended.signal });
      if (!response.ok) throw new Error(`status ${response.status}`);
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        clearTimeout(clock);
        clock = setTimeout(() => ended.abort(), SILENCE);
        whole.set(value, filled);
        filled += value.length;
        count(value.length);
      }
      if (filled !== part.bytes) throw new Error(`${filled} of ${part.bytes} bytes`);
    } catch (error) {
      count(-filled);
      throw new Error(`The download broke off (${part.name}.bin: ${error.message}). What has arrived is kept.`);
    } finally {
      clearTimeout(clock);
    }
    await kept?.put(address, new Response(whole)).catch(() => null);
    return whole;
  }

  // Promises { name: [bytes, …] }; progress(loaded, of) in bytes.
  async function load(names, progress) {
    const all = bytes(names);
    let loaded = 0;
    const count = (more) => progress((loaded += more), all);
    for (const part of parts(names)) {
      if (here.has(part.name)) count(part.bytes);
      else if (fromDisk) {
        here.set(part.name, await read(part));
        count(part.bytes);
      } else here.set(part.name, await fetched(part, count));
    }
    const taken = {};
    for (const name of names) {
      taken[name] = PLAY.files[name].map((part) => here.get(part.name));
      for (const part of PLAY.files[name]) here.delete(part.name);
    }
    return taken;
  }

  // Parts of an earlier build of this very page are thrown away.
  async function tidy() {
    const kept = fromDisk ? null : await shelf();
    const base = new URL("data/", location.href).href;
    const wanted = new Set(Object.values(PLAY.files).flat().map((part) => `${base}${part.name}.bin`));
    for (const { url } of (await kept?.keys()) ?? []) {
      if (url.startsWith(base) && !wanted.has(url)) await kept.delete(url);
    }
  }

  // So that this page opens without a network, too: called when it has drawn, for only then does it
  // have what it needs to draw again. Where a browser forbids it, a network is needed, as before.
  async function keepPage() {
    try {
      if (fromDisk || (await navigator.serviceWorker.getRegistration())) return;
      const own = [...document.querySelectorAll("script[src], link[rel=stylesheet]")];
      const files = own.map((element) => element.src ?? element.href);
      const page = location.href.split(/[?#]/)[0];
      await (await caches.open(`${SHELF} page`)).addAll([page, "data/engine.js", ...files]);
      await navigator.serviceWorker.register("offline.js");
    } catch {}
  }

  return { load, bytes, megabytes, tidy, keepPage, fromDisk };
})();
