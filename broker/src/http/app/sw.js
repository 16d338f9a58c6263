// Keeps the app's own files, so that it opens at once and without a network. It keeps nothing that the broker
// answered: what waits is asked for anew each time.

const VERSION = "{version}";
const FILES = {files};

addEventListener("install", (event) => {
  event.waitUntil(
    caches
      .open(VERSION)
      .then((cache) => cache.addAll(FILES))
      .then(() => skipWaiting()),
  );
});

addEventListener("activate", (event) => {
  const old = (names) => Promise.all(names.filter((name) => name !== VERSION).map((name) => caches.delete(name)));
  event.waitUntil(
    caches
      .keys()
      .then(old)
      .then(() => clients.claim()),
  );
});

addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin) return;
  if (event.request.mode === "navigate") {
    // The page brings a fresh nonce, so the network comes first.
    event.respondWith(fetch(event.request).catch(() => caches.match("/", { cacheName: VERSION })));
  } else if (FILES.includes(url.pathname)) {
    event.respondWith(caches.match(url.pathname, { cacheName: VERSION }).then((kept) => kept ?? fetch(event.request)));
  }
});

// Whatever a message says, what is shown are these sentences: a push service, or who took it over, cannot speak here.
const SENTENCES = new Map([
  ["waits", "Something waits for your answer."],
  ["veto", "Something is approved, and can still be denied: look at it now."],
  ["alarm", "An alarm: look at the inbox."],
  ["stopped", "An admin stopped everything: look at the inbox."],
  ["factor", "A registry asks for its own second factor: look at the inbox."],
  ["recovery", "Somebody's lost factors are to be replaced: look who asks for it."],
  ["custody", "What opens the vault is about to change: look who asks for it."],
  ["thaw", "A thaw waits for a second admin."],
  ["token", "A registry token is to be rotated or revoked: look at the list of tokens."],
  ["settings", "One of your channels was removed: if that was not you, look at your devices."],
  ["test", "This is a test: you would be rung like this."],
]);

addEventListener("push", (event) => {
  let told = {};
  try {
    told = event.data?.json() ?? {};
  } catch {
    // Not ours; a browser wants something to be shown all the same.
  }
  const about = SENTENCES.has(told.about) ? told.about : "waits";
  const id = typeof told.id === "string" && /^[0-9a-f-]{36}$/.test(told.id) ? told.id : null;
  const shown = registration.showNotification("Countersign", {
    body: SENTENCES.get(about),
    // A second message about the same replaces the first.
    tag: id ?? about,
    icon: "/icon-192.png",
    badge: "/icon-192.png",
    data: { path: id ? `/r/${id}` : "/" },
  });
  event.waitUntil(shown);
});

addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(opened(event.notification.data?.path ?? "/"));
});

/** Leads an open window to the page, or opens one. */
async function opened(path) {
  const windows = await clients.matchAll({ type: "window", includeUncontrolled: true });
  const open = windows.find((client) => new URL(client.url).origin === location.origin);
  if (!open) return clients.openWindow(path);
  await open.focus().catch(() => {});
  open.postMessage({ go: path });
}
