// What ended, newest first.

import { signed } from "./api.js";
import { action, fill, h, nothing } from "./dom.js";
import { list, name, time } from "./format.js";
import { chip } from "./states.js";

/** Pages that are asked for at most until something is found to show. */
const EMPTY_PAGES = 5;

export async function history(main, { signal }) {
  let page = await past("", signal);
  if (signal.aborted) return;
  const lines = h("ul", { class: "cards" });
  const more = action("Show older ones", {}, async () => {
    page = await past(page.next, signal);
    show();
  });
  const show = () => {
    lines.append(...page.requests.map(line));
    more.hidden = !page.next;
  };
  show();
  const empty = nothing("history", "Nothing has ended yet.", "What was published, denied or expired is kept here.");
  fill(main, h("h1", { tabindex: -1 }, "History"), lines.children.length || page.next ? lines : empty, more);
}

/** A page with something on it: those that concern only others are left out by the broker. */
async function past(after, signal) {
  let page = { requests: [], next: after };
  for (let tries = 0; tries < EMPTY_PAGES && !page.requests.length; tries++) {
    const query = page.next ? `&after=${encodeURIComponent(page.next)}` : "";
    page = await signed("GET", `/v1/history?limit=20${query}`, undefined, signal);
    if (!page.next) break;
  }
  return page;
}

/** One that ended; also shown among a package's last publishes. */
export function line(request) {
  const more = request.items > 1 ? ` and ${request.items - 1} more` : "";
  return h(
    "li",
    {},
    h(
      "a",
      { class: "card", href: `/r/${request.id}` },
      h("strong", {}, name(request.title), more),
      h("span", { class: "row" }, chip(request.state), time(request.ended)),
      request.reason ? h("span", {}, request.reason) : null,
      request.approvals.length ? h("span", {}, `approved by ${list(request.approvals)}`) : null,
      h("span", {}, "asked by ", name(request.caller)),
    ),
  );
}
