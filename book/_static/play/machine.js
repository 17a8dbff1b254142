// The worker that draws: started with the first wish, given what it lacks, asked one thing at a time.
"use strict";

class Machine {
  // told(message): "read", "frame", "done" and "failed" of the newest job
  constructor(told) {
    this.told = told;
    this.job = 0;
    this.worker = null;
    this.have = new Set();
    this.loading = Promise.resolve();
  }

  // What must be loaded before a network can draw; a second stage reads no text.
  lacks(model) {
    const wanted = ["runtime", "vocabulary", ...(PLAY.models[model].width ? ["encoder"] : []), model];
    return wanted.filter((name) => !this.have.has(name));
  }

  // One loading after another; promises that the network is ready.
  prepare(model, progress) {
    const turn = this.loading.then(() => this.load(this.lacks(model), progress));
    this.loading = turn.catch(() => null);
    return turn;
  }

  async load(names, progress) {
    if (!names.length) return;
    if (typeof WebAssembly !== "object" || typeof DecompressionStream !== "function") {
      throw new Error("This browser has no WebAssembly (or is too old to unpack files), so it cannot draw here. The recorded words play all the same.");
    }
    if (!globalThis.ENGINE) await script("data/engine.js");
    const files = await FILES.load(names, progress);
    if (!this.worker) this.start();
    if (files.runtime) {
      const threads = globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
      const { runtime: wasm, vocabulary } = files;
      await this.ask({ kind: "start", wasm, vocabulary, loader: ENGINE.loader, threads }, "started");
      this.have.add("runtime").add("vocabulary");
      delete files.runtime;
      delete files.vocabulary;
    }
    for (const [name, parts] of Object.entries(files)) {
      await this.ask({ kind: "open", name, about: PLAY.models[name] ?? {}, parts }, "opened");
      this.have.add(name);
    }
  }

  start() {
    const address = URL.createObjectURL(new Blob([ENGINE.script], { type: "text/javascript" }));
    this.worker = new Worker(address);
    this.worker.onmessage = ({ data }) => {
      if (data.job === undefined) this.answered?.(data);
      else if (data.job === this.job) this.told(data);
    };
    this.worker.onerror = (event) => {
      event.preventDefault();
      const why = event.message || "The drawing part of this page has stopped.";
      this.worker.terminate(); // the next try begins anew
      this.worker = null;
      this.have.clear();
      if (this.answered) this.answered({ kind: "failed", why });
      else this.told({ kind: "failed", why });
    };
  }

  // What opens files answers once; their bytes are handed over, not copied.
  async ask(message, wanted) {
    const heard = new Promise((resolve) => (this.answered = resolve));
    const bytes = [message.wasm, message.vocabulary, message.parts].filter(Boolean).flat();
    this.worker.postMessage(message, bytes.map((part) => part.buffer));
    const { kind, why } = await heard;
    this.answered = null;
    if (kind !== wanted) throw new Error(why);
  }

  // Older wishes are dropped at their next step.
  send(wish) {
    this.worker.postMessage({ ...wish, job: ++this.job });
  }

  stop() {
    this.job++;
    this.worker?.postMessage({ kind: "stop", job: this.job });
  }
}

function script(address) {
  return new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.onload = () => resolve();
    element.onerror = () => reject(new Error(`The download broke off (${address}).`));
    element.src = address;
    document.head.append(element);
  }).finally(() => document.querySelector(`script[src="${address}"]`)?.remove());
}
