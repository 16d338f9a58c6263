// One request: what it is, who asks, and how it stands. The answer to it is in answer.js.

import { hex, requestDigest } from "./canonical.js";
import { known } from "./device.js";
import { signed } from "./api.js";
import { answer } from "./answer.js";
import { action, fill, h, say } from "./dom.js";
import { evidence } from "./evidence.js";
import { digest, list, name, size, time } from "./format.js";
import { follow, repeat } from "./live.js";
import { doubtful } from "./log.js";
import { chip, final, meaning } from "./states.js";
import { follow as witness } from "./witness.js";

/** Claims that matter most, in this order. */
const FIRST = [
  ["repository", "Repository"],
  ["workflow", "Workflow"],
  ["ref", "Ref"],
  ["sha", "Commit"],
  ["event", "Event"],
  ["actor", "Started by"],
  ["environment", "Environment"],
];

/** What a yes does, where it is not simply: the broker publishes what the job uploads. */
const MODES = {
  deposit: "The broker has the files, and publishes them by itself.",
  mint: "The job gets a token of the registry's own for a few minutes.",
  reveal: "The job gets the stored token itself.",
};

export async function request(main, { argument: id, signal, again }) {
  const get = (path) => signed("GET", path, undefined, signal);
  // Whatever is wrong with the log, a no stays possible.
  const doubts = (why) => {
    if (signal.aborted) throw why;
    return why;
  };
  let [question, status, me, device, doubt] = await Promise.all([
    get(`/v1/requests/${id}/question`),
    get(`/v1/requests/${id}`),
    get("/v1/devices"),
    known(),
    witness(signal).then(() => null, doubts),
  ]);
  // What is shown and what is signed are the same bytes, whatever the broker says.
  const about = await requestDigest(question.facts);
  if (hex(about) !== question.request_digest || question.facts.id !== id) {
    throw new Error("The broker shows other facts than its digest covers. Do not answer; tell its admin.");
  }
  if (signal.aborted) return;
  const { facts } = question;
  const first = facts.items[0];
  const more = facts.items.length > 1 ? h("small", {}, ` and ${facts.items.length - 1} more`) : null;
  const standing = h("section", { "aria-label": "How it stands" });
  const answering = h("div");
  const inside = h("div");
  fill(
    main,
    h("p", { class: "eyebrow" }, first.registry),
    h("h1", { tabindex: -1 }, name(first.package), h("span", { class: "version" }, `@${first.version}`), more),
    standing,
    doubt ? doubtful(doubt) : null,
    warnings(question),
    announced(question),
    confirm(question),
    h("section", { "aria-label": "Packages" }, facts.items.map((item, at) => itemCard(facts, item, question.previous[at]))),
    inside,
    caller(facts),
    said(question),
    answering,
    details(question),
  );
  const show = () => {
    fill(standing, stands(question, status), status.state === "published" && question.mode !== "reveal" ? receipt(id) : null);
    fill(inside, evidence(question));
    const answerable = ["pending", "approved", "releasing", "confirming"].includes(status.state);
    fill(answering, answerable ? answer({ question, status, about, me, device, doubt, again }) : null);
  };
  show();
  if (final(status.state)) return;
  cards(question, signal, get, (fresh) => fill(inside, evidence(fresh)));
  follow(id, status, signal, async (next, before) => {
    if (next.state !== before.state) {
      // Another state has other things to show, like a registry's page.
      await again();
      return say(`Now ${next.state}. ${next.reason ?? meaning(next.state)}`);
    }
    const fresh = await get(`/v1/requests/${id}/question`);
    status = next;
    question = { ...question, approvals: fresh.approvals };
    // What somebody is typing stays as it is.
    fill(standing, stands(question, status));
    say(`${next.approvals} of ${next.quorum} approvals`);
  });
}

/** Shows what is inside once the broker has it: the client hands the files in while somebody looks already. */
function cards(question, signal, get, show) {
  const outcomes = (of) => (of.cards ?? []).map((card) => card.outcome);
  const open = (all) => all.some((outcome) => ["waiting", "not-given"].includes(outcome));
  let before = outcomes(question);
  // Most come within seconds; some files nobody hands in.
  let soon = 15;
  const look = async () => {
    const fresh = await get(`/v1/requests/${question.facts.id}/question`).catch(() => null);
    const now = fresh ? outcomes(fresh) : before;
    if (now.join() !== before.join()) show(fresh);
    before = now;
    if (!open(now)) return 0;
    return now.includes("waiting") || soon-- > 0 ? 2 : undefined;
  };
  if (open(before)) repeat(signal, look, 1);
}

function stands(question, status) {
  const people = question.approvals.length ? `: ${list(question.approvals)}` : "";
  const ended = final(status.state);
  const told = !["denied", "cancelled"].includes(status.state);
  // A sentence of the broker's says it better: who denied it and why, what the registry said.
  const words = status.reason ? sentence(status.reason) : "";
  return [
    h("p", { class: "row" }, chip(status.state), told ? `${status.approvals} of ${question.quorum} approvals${people}` : null),
    status.state === "pending" ? null : h("p", {}, words, " ", meaning(status.state)),
    h("p", { class: "dim" }, "opened ", time(question.opened), ended ? null : [h("br"), "ends ", time(status.expires)]),
  ];
}

/** The signed receipt as a file: `countersign verify` checks it without a network. */
function receipt(id) {
  const save = async () => {
    const envelope = await signed("GET", `/v1/requests/${id}/receipt`);
    const url = URL.createObjectURL(new Blob([JSON.stringify(envelope)], { type: "application/json" }));
    const link = h("a", { href: url, download: `receipt-${id}.json` });
    link.click();
    // The download has begun by then.
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  };
  return h("div", { "data-errors": true }, action("Download the receipt", {}, save));
}

function warnings(question) {
  const mode = MODES[question.mode];
  const all = [...(question.warnings ?? [])];
  return [
    all.length
      ? h("section", { class: "notice warn", "aria-label": "What is unusual" }, h("ul", {}, all.map((text) => h("li", {}, sentence(text)))))
      : null,
    mode ? h("p", { class: "dim" }, mode) : null,
  ];
}

function sentence(text) {
  const end = /[.!?]$/.test(text) ? "" : ".";
  // A package's name stays as it is.
  const word = /^[a-z]+ /.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
  return word + end;
}

/** Who said beforehand that this was meant. */
function announced(question) {
  return (question.intents ?? []).map((intent) => {
    const counts = intent.counts ? " It counts as a yes." : "";
    const named = { versions: "this version", commit: "this commit", bytes: "these very bytes" }[intent.names];
    return h("p", { class: "notice good" }, `${intent.person} announced ${named} `, time(intent.made), `.${counts}`);
  });
}

function confirm(question) {
  return (question.confirm ?? []).map((wanted) =>
    h(
      "section",
      { class: "notice warn", "aria-label": "The registry's own second factor" },
      h("p", {}, "The registry wants its own second factor for ", name(wanted.item), ", until ", time(wanted.until), "."),
      wanted.page
        ? h("a", { class: "button", href: wanted.page, rel: "noreferrer", target: "_blank" }, "Open the registry's page")
        : h("p", {}, "Its page is being asked for."),
    ),
  );
}

function itemCard(facts, item, previous) {
  const before = previous ? ["after ", name(previous)] : "nothing of it is known to be published";
  const title = [name(`${item.registry}:${item.package}`), " ", h("b", {}, name(item.version))];
  return h(
    "article",
    { class: "card" },
    // Of one alone, the page's heading has said it.
    h("h2", {}, facts.items.length > 1 ? title : item.files?.length === 1 ? "The file" : "The files"),
    h("p", {}, before, item.tag ? [" · tag ", h("b", {}, name(item.tag))] : null),
    h("ul", { class: "files" }, (item.files ?? []).map(file)),
  );
}

function file(file) {
  const bytes = file.size ? size(file.size) : "announced only";
  return h("li", {}, h("strong", {}, name(file.name)), " ", h("small", {}, bytes), digest(file.digest));
}

function caller(facts) {
  const claims = { ...facts.caller.claims };
  const rows = FIRST.filter(([key]) => key in claims).map(([key, label]) => {
    const value = claims[key];
    delete claims[key];
    return [label, value];
  });
  const shown = (label, value) => (label === "Commit" ? digest(value) : name(value));
  const row = ([label, value]) => [h("dt", {}, label), h("dd", {}, shown(label, value))];
  const rest = Object.entries(claims);
  const run = facts.caller.run_url;
  return h(
    "section",
    { class: "card", "aria-label": "Who asks" },
    h("h2", {}, "Who asks"),
    h("dl", {}, rows.map(row), row(["Verified by", facts.caller.issuer])),
    run ? h("p", { class: "lines" }, h("a", { href: run, rel: "noreferrer", target: "_blank" }, "The run that asks")) : null,
    h("details", {}, h("summary", {}, "All verified claims"), h("dl", {}, row(["subject", facts.caller.subject]), rest.map(row))),
  );
}

/** Words of the job. Whoever controls the workflow writes them. */
function said(question) {
  if (!question.note) return null;
  const label = h("small", {}, "The job says this. Nobody has verified it.");
  return h("section", { class: "unverified", "aria-label": "Unverified words of the job" }, label, h("p", {}, question.note));
}

function details({ facts, request_digest }) {
  const row = (label, value) => [h("dt", {}, label), h("dd", {}, value)];
  return h(
    "details",
    {},
    h("summary", {}, "Request digest"),
    h("p", { class: "dim" }, "This phone has computed it from what is shown above. The terminal shows the same."),
    h("dl", {}, row("Digest", digest(request_digest)), row("Policy", digest(facts.policy)), row("Request", h("code", {}, facts.id))),
  );
}
