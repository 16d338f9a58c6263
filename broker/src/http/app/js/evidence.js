// What is inside the files, as the broker has read it from their bytes: what stands out first, the changes on demand.

import { signed } from "./api.js";
import { action, fill, h } from "./dom.js";
import { count, name, size, time } from "./format.js";

const RISKS = { critical: "bad", high: "bad", medium: "warn", low: "", note: "" };

/** What was not looked into is said as plainly as what was. */
const OUTCOMES = {
  waiting: ["", "The broker is looking into it. What it finds appears here."],
  "not-given": ["", "Nobody handed it to the broker for inspection: what is in it is not known."],
  failed: ["bad", "It could not be inspected: it is damaged, ambiguous, too large or took too long."],
  "not-an-archive": ["", "Not an archive that the broker looks into."],
  "left-out": ["bad", "It was not read: the request has more than the broker looks into. What is in it is not known."],
};

const CHANGES = { added: "new", removed: "gone", changed: "changed" };

/** The cards of a request. */
export function evidence(question) {
  const cards = question.cards ?? [];
  const id = question.facts.id;
  return cards.map((card) => one(id, card, cards.length === 1));
}

function one(id, card, only) {
  const { inside } = card;
  const [tone, words] = OUTCOMES[card.outcome] ?? ["", ""];
  return h(
    "section",
    { class: "card", "aria-label": `What is inside ${card.name}` },
    h("h2", {}, "What is inside", only ? null : [" ", name(card.name)]),
    words ? h("p", { class: tone ? `notice ${tone}` : "dim" }, words) : null,
    inside ? h("p", {}, compared(card)) : null,
    card.outcome === "inspected" && !card.findings.length && card.previous.kind !== "unknown" ? h("p", {}, "Nothing stands out.") : null,
    h("ul", { class: "plain findings" }, card.findings.map(finding)),
    inside ? source(inside) : null,
    inside ? changes(id, card) : null,
  );
}

function compared({ inside, previous }) {
  const all = `${count(inside.files, "file")}, ${size(inside.unpacked)}`;
  if (previous.kind === "first") return `${all}. Nothing of this package is published: all of it is new.`;
  if (previous.kind !== "version") return `${all}. It was not compared with the version before: what is new in it is not known.`;
  const since = previous.published ? [", published ", time(previous.published)] : null;
  return [`${all}. ${inside.added} new, ${inside.changed} changed, ${inside.removed} gone since `, h("b", {}, previous.version), since, "."];
}

function finding({ kind, risk, what, why }) {
  return h(
    "li",
    {},
    h("p", { class: "row" }, h("span", { class: "chip", "data-tone": RISKS[risk] || null }, risk), h("strong", {}, kind)),
    h("p", {}, what),
    h("p", { class: "dim" }, why),
  );
}

function source({ source: against }) {
  if (!against) return h("p", { class: "dim" }, "Not compared with the source: the job did not hand it in.");
  const { same, differ, absent } = against;
  return h("p", {}, `Against the source, as the job handed it in: ${same} the same, ${differ} with other bytes, ${absent} not in it.`);
}

function changes(id, card) {
  const { added, changed, removed, lines } = card.inside;
  const all = added + changed + removed;
  if (!all) return null;
  if (!lines.length) return h("p", { class: "dim" }, `The list of the ${count(all, "file")} that differ is left out: the request has too many.`);
  const rest = all - lines.length;
  return h(
    "details",
    {},
    h("summary", {}, `Files that differ (${added + changed + removed})`),
    h("ul", { class: "plain" }, card.inside.lines.map((line) => difference(id, card, line))),
    rest > 0 ? h("p", { class: "dim" }, `And ${rest} more, which are not listed.`) : null,
  );
}

function difference(id, card, line) {
  const before = line.before === undefined ? "" : `, before ${size(line.before)}`;
  const place = h("div", { "data-errors": true });
  const show = async () => {
    const query = new URLSearchParams({ item: card.item, file: card.file, difference: line.difference });
    const { text } = await signed("GET", `/v1/requests/${id}/diff?${query}`);
    fill(place, h("pre", { tabindex: 0, "aria-label": `How ${line.name} changed` }, text));
  };
  if (line.difference !== undefined) place.append(action("Show what changed", { "aria-label": `Show what changed in ${line.name}` }, show));
  return h(
    "li",
    {},
    h("p", {}, h("strong", {}, name(line.name)), " ", h("small", {}, `${CHANGES[line.change] ?? line.change}, ${size(line.size)}${before}`)),
    place,
  );
}
