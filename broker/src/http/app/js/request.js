// One request: what it is, and the answer to it.

import { hex, random, requestDigest, statementBytes } from "./canonical.js";
import { known, now, sign } from "./device.js";
import { open, signed } from "./api.js";
import * as passkey from "./passkey.js";
import { action, fill, h } from "./dom.js";
import { digest, name, size, time } from "./format.js";

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

export async function request(main, { argument: id, signal, again }) {
  const [question, me, device] = await Promise.all([
    signed("GET", `/v1/requests/${id}/question`),
    signed("GET", "/v1/devices"),
    known(),
  ]);
  // What is shown and what is signed are the same bytes, whatever the broker says.
  const about = await requestDigest(question.facts);
  if (hex(about) !== question.request_digest || question.facts.id !== id) {
    throw new Error("The broker shows other facts than its digest covers. Do not answer; tell its admin.");
  }
  await sameLog(device);
  if (signal.aborted) return;
  const { facts } = question;
  const first = facts.items[0];
  fill(
    main,
    h("h1", {}, name(`${first.package}@${first.version}`), facts.items.length > 1 ? ` and ${facts.items.length - 1} more` : ""),
    state(question),
    (question.warnings ?? []).length
      ? h("section", { class: "notice warn", "aria-label": "What is unusual" }, h("ul", {}, question.warnings.map((text) => h("li", {}, text))))
      : null,
    confirm(question),
    h("section", { "aria-label": "Packages" }, facts.items.map((item, at) => itemCard(item, question.previous[at]))),
    caller(facts, question),
    question.state === "pending" || question.state === "approved" ? answer(question, about, me, device, again) : null,
    h("details", {}, h("summary", {}, "Request digest"), h("p", {}, digest(question.request_digest)), h("p", {}, "Policy ", digest(facts.policy)), h("p", {}, "Request ", h("code", {}, facts.id))),
  );
}

/** Another log key means another broker, or one whose history was replaced: nothing is answered there. */
async function sameLog(device) {
  const status = await open("GET", "/v1/status");
  if (device.logKey && status.log_key && device.logKey !== status.log_key) {
    throw new Error("This broker's log has another key than when you enrolled. Do not answer; tell its admin.");
  }
}

function state(question) {
  const people = question.approvals.length ? `: ${question.approvals.join(", ")}` : "";
  const line = `${question.approvals.length} of ${question.quorum} approvals${people}`;
  return h("p", { class: "state", "data-state": question.state }, h("strong", {}, question.state), " · ", line, " · opened ", time(question.opened), question.state === "pending" ? [" · ends ", time(question.facts.expires)] : null);
}

function confirm(question) {
  return (question.confirm ?? []).map((wanted) =>
    h("section", { class: "notice warn" }, h("p", {}, "The registry wants its own second factor for ", name(wanted.item), ", until ", time(wanted.until), "."), wanted.page ? h("p", {}, h("a", { class: "button", href: wanted.page, rel: "noreferrer", target: "_blank" }, "Open the registry's page")) : h("p", {}, "Its page is being asked for.")),
  );
}

function itemCard(item, previous) {
  return h(
    "article",
    { class: "card" },
    h("h2", {}, name(`${item.registry}:${item.package}`), " ", h("b", {}, name(item.version))),
    h("p", {}, previous ? ["after ", name(previous)] : "nothing of it is known to be published", item.tag ? [" · tag ", h("b", {}, name(item.tag))] : null),
    h("ul", { class: "files" }, (item.files ?? []).map((file) => h("li", {}, name(file.name), " ", h("small", {}, file.size ? size(file.size) : "announced only"), h("br"), digest(file.digest)))),
  );
}

function caller(facts, question) {
  const claims = { ...facts.caller.claims };
  const rows = FIRST.filter(([key]) => key in claims).map(([key, label]) => {
    const value = claims[key];
    delete claims[key];
    return [label, value];
  });
  const row = ([label, value]) => [h("dt", {}, label), h("dd", {}, name(value))];
  return h(
    "section",
    { class: "card", "aria-label": "Who asks" },
    h("h2", {}, "Who asks"),
    h("dl", {}, row(["Issuer", `${facts.caller.issuer} ${facts.caller.subject}`]), rows.map(row)),
    facts.caller.run_url ? h("p", {}, h("a", { href: facts.caller.run_url, rel: "noreferrer", target: "_blank" }, "The run that asks")) : null,
    question.note ? h("p", {}, h("small", {}, "the job says (unverified): "), question.note) : null,
    Object.keys(claims).length ? h("details", {}, h("summary", {}, "All verified claims"), h("dl", {}, Object.entries(claims).map(row))) : null,
  );
}

/** The form. Whatever it sends is signed by this device and proved by a passkey or a code, each time anew. */
function answer(question, about, me, device, again) {
  const hasPasskey = passkey.available && me.passkeys.length > 0;
  const match = digits("match", "Match code", "Six digits, from the output of the job that you started yourself.");
  const totp = digits("totp", "Authenticator code", "Six digits, from your authenticator app.");
  const reason = h("textarea", { id: "reason", rows: 2, maxlength: 300 });
  const proofs = {
    passkey: async (decision) => ({ passkey: await passkey.prove(decision, about, question.request_digest) }),
    totp: async () => ({ totp: totp.value() }),
  };
  const send = async (decision, proof) => {
    const approving = decision === "approve";
    const matchCode = approving ? match.value() : "";
    const factor = await proofs[proof](decision);
    const statement = {
      decision,
      request_digest: question.request_digest,
      device: device.id,
      time: now(),
      nonce: hex(random(16)),
    };
    const body = { statement, signature: await sign(device, statementBytes(statement)), match_code: matchCode, ...factor };
    if (!approving && reason.value.trim()) body.reason = reason.value.trim();
    await signed("POST", `/v1/requests/${question.facts.id}/answer`, body);
    await again();
  };
  const yes = [
    hasPasskey && question.factors.includes("passkey") ? "passkey" : null,
    me.totp && question.factors.includes("totp") ? "totp" : null,
  ].filter(Boolean);
  const no = hasPasskey ? "passkey" : me.totp ? "totp" : null;
  const approve = (proof, label) => action(label, { class: "yes" }, () => send("approve", proof));
  const approving = () => [
    h("h2", {}, "Publish exactly this?"),
    yes.length ? match.field : null,
    yes[0] === "passkey" ? approve("passkey", "Approve with passkey") : null,
    yes[0] === "totp" ? [totp.field, approve("totp", "Approve")] : null,
    yes[1] === "totp" ? h("details", {}, h("summary", {}, "Use an authenticator code instead"), totp.field, approve("totp", "Approve with code")) : null,
    yes.length ? null : h("p", {}, `The policy wants ${question.factors.join(" or ")} here, which this browser cannot give. In a terminal: `, h("code", {}, `countersign approve ${question.facts.id}`)),
  ];
  return h(
    "section",
    { class: "answer", "aria-label": "Your answer", "data-errors": true },
    question.state === "pending" ? approving() : null,
    no
      ? h(
          "details",
          { class: "no" },
          h("summary", {}, "Deny"),
          h("label", { for: "reason" }, "Why? The job's log shows it. May stay empty."),
          reason,
          no === "totp" && !yes.includes("totp") ? totp.field : null,
          no === "totp" && yes.includes("totp") ? h("p", {}, "Type your authenticator code above first.") : null,
          action("Deny", { class: "bad" }, () => send("deny", no)),
          action("Deny and freeze", { class: "bad" }, () => send("deny-and-freeze", no)),
          h("p", {}, h("small", {}, "Frozen, nothing of these packages is published until two people thaw them.")),
        )
      : null,
  );
}

/** A field for six digits: typed by a person, never filled in. */
function digits(id, label, help) {
  const input = h("input", { id, name: id, inputmode: "numeric", autocomplete: "off", maxlength: 9, "aria-describedby": `${id}-help` });
  return {
    field: h("div", { class: "digits" }, h("label", { for: id }, label), h("small", { id: `${id}-help` }, help), input),
    // A typing error must not cost one of three tries.
    value: () => {
      const text = input.value.replaceAll(/\s/g, "");
      if (/^[0-9]{6}$/.test(text)) return text;
      input.focus();
      throw new Error(`${label}: ${help}`);
    },
  };
}
