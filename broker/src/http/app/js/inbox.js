// What waits for this person.

import { signed } from "./api.js";
import { fill, h, nothing, say } from "./dom.js";
import { count, name, time } from "./format.js";
import { repeat } from "./live.js";
import { doubtful } from "./log.js";
import { Fork, follow } from "./witness.js";

/** Most lines that are shown. */
const SHOWN = 200;

export async function inbox(main, { signal }) {
  let box = await waiting(signal);
  if (signal.aborted) return;
  const shown = h("div");
  fill(main, h("h1", { tabindex: -1 }, "Inbox"), shown);
  show(shown, box);
  // A witness looks whenever it is there, and not only when it is about to answer.
  follow(signal).catch((why) => {
    if (why instanceof Fork && !signal.aborted) shown.before(doubtful(why));
  });
  const look = async () => {
    const next = await waiting(signal).catch(() => null);
    // What has not changed is left alone: it may have the keyboard's focus.
    if (!next || signal.aborted || JSON.stringify(next) === JSON.stringify(box)) return;
    const fresh = next.requests.filter((line) => !box.requests.some(({ id }) => id === line.id));
    box = next;
    const focused = document.activeElement?.getAttribute("href");
    show(shown, box);
    if (focused) shown.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
    if (fresh.length) say(`New: ${fresh.map((line) => line.title).join(", ")}`);
  };
  repeat(signal, look);
}

async function waiting(signal) {
  const [box, acts] = await Promise.all(["/v1/inbox", "/v1/acts"].map((path) => signed("GET", path, undefined, signal)));
  box.acts = acts.acts;
  for (let next = box.next; next && box.requests.length < SHOWN; ) {
    const more = await signed("GET", `/v1/inbox?after=${encodeURIComponent(next)}`, undefined, signal);
    box.requests.push(...more.requests);
    next = more.next;
  }
  return box;
}

function show(place, box) {
  const mine = box.requests.filter((line) => !line.answered || line.confirm?.length);
  const others = box.requests.filter((line) => !mine.includes(line));
  const alarms = [...(box.alarms ?? []), ...(box.unseen ?? [])];
  document.title = `${mine.length ? `(${mine.length}) ` : ""}Inbox · Countersign`;
  navigator.setAppBadge?.(mine.length).catch(() => {});
  fill(
    place,
    alarms.length
      ? h("section", { class: "notice bad", "aria-label": "Alarms" }, alarms.map((text) => h("p", {}, text)))
      : null,
    box.acts.length
      ? h("p", { class: "notice warn" }, `${count(box.acts.length, "act")} of admins ${box.acts.length > 1 ? "wait" : "waits"}. `, h("a", { href: "/devices" }, "Look, and object if it should not be."))
      : null,
    mine.length
      ? [h("p", { class: "lead" }, `${mine.length} to answer. What ends first comes first.`), h("ul", { class: "cards" }, mine.map(line))]
      : nothing("inbox", "Nothing waits for you.", "Something that does shows up here by itself."),
    others.length ? [h("h2", {}, "Waiting for others"), h("ul", { class: "cards" }, others.map(line))] : null,
  );
}

function line(request) {
  const more = request.items > 1 ? ` and ${request.items - 1} more` : "";
  const [approvals, quorum] = request.approvals;
  const yours = request.answered ? ", one of them yours" : "";
  return h(
    "li",
    {},
    h(
      "a",
      { class: "card", href: `/r/${request.id}` },
      h("strong", {}, name(request.title), more),
      h("span", {}, "asked by ", name(request.caller)),
      h("span", {}, "opened ", time(request.opened)),
      h("span", {}, "ends ", time(request.expires)),
      h("span", {}, `${approvals} of ${quorum} approvals${yours}`),
      request.confirm?.length
        ? h("span", { class: "tag" }, "The registry asks for its own second factor.")
        : null,
    ),
  );
}
