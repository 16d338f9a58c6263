// Which page an address shows.

import { fill, failure, h } from "./dom.js";
import { NotEnrolled, reachable } from "./api.js";
import * as device from "./device.js";
import { admin } from "./admin.js";
import { devices } from "./devices.js";
import { enroll } from "./enroll.js";
import { history } from "./history.js";
import { inbox } from "./inbox.js";
import { intents } from "./intents.js";
import { log } from "./log.js";
import { more } from "./more.js";
import { notify, renew } from "./notify.js";
import { packages } from "./packages.js";
import { request } from "./request.js";

const PAGES = [
  [/^\/$/, "Inbox", inbox],
  [/^\/r\/([0-9a-f-]{36})$/, "Request", request],
  [/^\/enroll$/, "Enrol", enroll],
  [/^\/history$/, "History", history],
  [/^\/packages$/, "Packages", packages],
  [/^\/intents$/, "Announced releases", intents],
  [/^\/devices$/, "My devices", devices],
  [/^\/notifications$/, "Notifications", notify],
  [/^\/log$/, "The log", log],
  [/^\/admin$/, "Admin", admin],
  [/^\/more$/, "More", more],
];

/** Pages that have no place of their own in a phone's bar. */
const UNDER_MORE = ["/intents", "/devices", "/notifications", "/log", "/admin"];

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
    const here = link.pathname === location.pathname;
    const above = link.pathname === "/more" && UNDER_MORE.includes(location.pathname);
    if (here || above) link.setAttribute("aria-current", here ? "page" : "true");
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
    else fill(main, h("h1", { tabindex: -1 }, title), failure(why), h("button", { type: "button", click: show }, "Try again"));
  } finally {
    main.removeAttribute("aria-busy");
  }
}

function stranger() {
  const id = /^\/r\/(.+)$/.exec(location.pathname)?.[1];
  fill(
    main,
    h("h1", {}, "This browser is not one of your devices"),
    h("p", {}, "An admin invites you with a link: open it here, on the phone that you answer with."),
    h("p", {}, "You have a device already? Its page My devices adds a further one."),
    id ? [h("p", {}, "In a terminal of an enrolled device:"), h("pre", {}, `countersign show ${id}\ncountersign approve ${id}\ncountersign deny ${id}`)] : null,
  );
}

/** Goes to another page of the app. */
function go(path) {
  globalThis.history.pushState({}, "", path);
  return show();
}

addEventListener("popstate", show);
addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || link.origin !== location.origin || link.hasAttribute("download") || event.ctrlKey || event.metaKey || event.shiftKey) return;
  // A link within the page keeps it as it is: an invite stands behind the #, and a code may be half typed.
  if (link.pathname === location.pathname && link.hash) {
    event.preventDefault();
    return main.focus();
  }
  event.preventDefault();
  // A screen reader goes on at the new page's heading.
  const arrived = () => {
    const heading = main.querySelector("h1") ?? main;
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  };
  go(link.pathname + link.search + link.hash).then(arrived);
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
addEventListener("online", () => reachable(true));
addEventListener("offline", () => reachable(false));
// Back again, what is shown may be old.
addEventListener("countersign-back", show);

device
  .known()
  .then((known) => {
    document.body.toggleAttribute("data-stranger", !known);
    if (known) return renew();
  })
  .catch(() => {});
show();
