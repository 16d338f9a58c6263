// Which page an address shows.

import { fill, failure, h } from "./dom.js";
import { NotEnrolled } from "./api.js";
import * as device from "./device.js";
import { inbox } from "./inbox.js";
import { request } from "./request.js";
import { enroll } from "./enroll.js";
import { devices } from "./devices.js";
import { notify, renew } from "./notify.js";

const PAGES = [
  [/^\/$/, "Inbox", inbox],
  [/^\/r\/([0-9a-f-]{36})$/, "Request", request],
  [/^\/enroll$/, "Enrol", enroll],
  [/^\/devices$/, "Devices", devices],
  [/^\/notifications$/, "Notifications", notify],
];

const main = document.querySelector("main");
let leaving = () => {};

/** Shows the page of the current address. */
async function show() {
  leaving();
  const controller = new AbortController();
  leaving = () => controller.abort();
  const [pattern, title, page] = PAGES.find(([pattern]) => pattern.test(location.pathname)) ?? [];
  document.title = title ? `${title} · Countersign` : "Countersign";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.pathname === location.pathname) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!page) return fill(main, h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: "/" }, "To the inbox")));
  const [, argument] = pattern.exec(location.pathname);
  main.setAttribute("aria-busy", "true");
  try {
    await page(main, { argument, signal: controller.signal, go, again: show });
  } catch (why) {
    if (controller.signal.aborted) return;
    if (why instanceof NotEnrolled) stranger();
    else fill(main, h("h1", {}, title), failure(why), h("button", { type: "button", click: show }, "Try again"));
  } finally {
    main.removeAttribute("aria-busy");
  }
}

function stranger() {
  const id = /^\/r\/(.+)$/.exec(location.pathname)?.[1];
  fill(
    main,
    h("h1", {}, "This browser is not one of your devices"),
    h("p", {}, "An admin invites you with a link; open it here, on the phone that you answer with. Add a further device on ", "the Devices page of one that you have."),
    id ? [h("p", {}, "In a terminal of an enrolled device:"), h("pre", {}, `countersign show ${id}\ncountersign approve ${id}\ncountersign deny ${id}`)] : null,
  );
}

/** Goes to another page of the app. */
function go(path) {
  history.pushState({}, "", path);
  return show();
}

addEventListener("popstate", show);
addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || link.origin !== location.origin || link.hasAttribute("download") || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(link.pathname + link.search + link.hash).then(() => main.focus({ preventScroll: true }));
  scrollTo(0, 0);
});

// The one script address that the page may run besides its own modules.
if ("serviceWorker" in navigator) {
  const policy = globalThis.trustedTypes?.createPolicy("countersign", {
    createScriptURL: (url) => {
      if (url === "/sw.js") return url;
      throw new TypeError("not ours");
    },
  });
  navigator.serviceWorker.register(policy ? policy.createScriptURL("/sw.js") : "/sw.js").catch(() => {});
  // A notification that was tapped while the app is open leads this window to its page.
  navigator.serviceWorker.addEventListener("message", (event) => {
    if (typeof event.data?.go === "string" && event.data.go.startsWith("/")) go(event.data.go);
  });
}
addEventListener("online", () => document.body.removeAttribute("data-offline"));
addEventListener("offline", () => document.body.setAttribute("data-offline", ""));

device.known().then((known) => {
  document.body.toggleAttribute("data-enrolled", Boolean(known));
  if (known) return renew();
}).catch(() => {});
show();
