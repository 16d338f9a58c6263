// Packages that are this person's business, and how they stand.

import { signed } from "./api.js";
import { action, fill, h, nothing } from "./dom.js";
import { count, list, name, time } from "./format.js";

/** People who must ask for a thaw. */
const THAW = 2;

export async function packages(main, { signal }) {
  let page = await signed("GET", "/v1/packages", undefined, signal);
  if (signal.aborted) return;
  const cards = h("div");
  const more = action("Show more", {}, async () => {
    page = await signed("GET", `/v1/packages?after=${encodeURIComponent(page.next)}`, undefined, signal);
    show();
  });
  const show = () => {
    cards.append(...page.packages.map(card));
    more.hidden = !page.next;
  };
  show();
  const empty = nothing("packages", "No package of yours is known yet.", "It appears with the first publish that a job asks for.");
  fill(main, h("h1", { tabindex: -1 }, "Packages"), cards.children.length || page.next ? cards : empty, more);
}

function card(of) {
  const open = of.open ? h("p", { class: "lines" }, h("a", { href: "/" }, count(of.open, "open request"))) : null;
  return h(
    "article",
    { class: "card" },
    h("h2", {}, name(of.package)),
    h("p", {}, of.frozen ? h("span", { class: "chip", "data-tone": "bad" }, "frozen") : h("span", { class: "chip", "data-tone": "good" }, "not frozen")),
    of.frozen ? freeze(of.package, of.frozen) : null,
    open,
    of.published.length
      ? [h("h3", {}, "Last publishes"), h("ul", { class: "plain" }, of.published.map((one) => publish(of.package, one)))]
      : h("p", { class: "dim" }, "Nothing of it was published here yet."),
  );
}

function publish(of, one) {
  // The request may name another package first.
  const title = one.title.startsWith(`${of}@`) ? one.title.slice(of.length + 1) : one.title;
  const more = one.items > 1 ? ` with ${count(one.items - 1, "other")}` : "";
  const link = h("a", { class: "lines", href: `/r/${one.id}` }, h("b", {}, name(title), more));
  const by = one.approvals.length ? [", approved by ", list(one.approvals)] : null;
  return h("li", {}, link, h("small", {}, time(one.ended), by));
}

/** Nothing is thawed from here: a session that was taken over must not undo a freeze. */
function freeze(of, frozen) {
  const asked = frozen.thawing.length;
  return h(
    "div",
    { class: "notice bad" },
    h("p", {}, "Nothing of it is released. Frozen by ", frozen.by ?? "the broker itself", " ", time(frozen.since), "."),
    frozen.seen ? h("p", {}, frozen.seen) : null,
    asked ? h("p", {}, `${list(frozen.thawing)} asked for a thaw; ${THAW - asked} more must.`) : h("p", {}, "Two admins thaw it, each in a terminal:"),
    h("pre", {}, `countersign admin thaw ${of}`),
  );
}
