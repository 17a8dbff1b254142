// A service worker: with it the page opens where there is no network. What is there is fetched; what
// was kept is given only where that fails, so a page that was built anew is never hidden by an old
// one. files.js keeps the large files, and put the page's own files here.
"use strict";

const SHELF = "minidiff play page";

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  const ours = method === "GET" && url.startsWith(self.location.origin) && !url.endsWith(".bin");
  if (ours) event.respondWith(answered(event.request));
});

async function answered(request) {
  const shelf = await caches.open(SHELF);
  try {
    const answer = await fetch(request);
    if (answer.status === 200) await shelf.put(request, answer.clone()).catch(() => null);
    return answer;
  } catch (error) {
    const kept = await shelf.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}
