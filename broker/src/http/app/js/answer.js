// The answer to a request: typed, proved and signed.

import { hex, random, statementBytes } from "./canonical.js";
import { now, sign } from "./device.js";
import { signed } from "./api.js";
import * as passkey from "./passkey.js";
import { action, h } from "./dom.js";
import { follow } from "./witness.js";

/** The form. Whatever it sends is signed by this device and proved by a passkey or a code, each time anew. */
export function answer({ question, status, about, me, device, doubt, again }) {
  const hasPasskey = passkey.available && me.passkeys.length > 0;
  const answered = question.approvals.includes(me.person);
  const match = digits("match", "Match code", "The six digits in the output of the job that you started yourself.");
  const totp = digits("totp", "Authenticator code", "The six digits that your authenticator app shows.");
  const reason = h("textarea", { id: "reason", rows: 2, maxlength: 300 });
  const proofs = {
    passkey: async (decision) => ({ passkey: await passkey.prove(decision, about, question.request_digest) }),
    totp: async () => ({ totp: totp.value() }),
  };
  const send = async (decision, proof) => {
    const approving = decision === "approve";
    // Nothing is approved while the log is not proved to be the one that was seen.
    if (approving) await follow();
    const matchCode = approving ? match.value() : "";
    const factor = await proofs[proof](decision);
    const statement = {
      decision,
      request_digest: question.request_digest,
      device: device.id,
      time: now(),
      nonce: hex(random(16)),
    };
    const signature = await sign(device, statementBytes(statement));
    const body = { statement, signature, match_code: matchCode, ...factor };
    if (!approving && reason.value.trim()) body.reason = reason.value.trim();
    try {
      await signed("POST", `/v1/requests/${question.facts.id}/answer`, body);
    } catch (why) {
      if (why.code === "match-code-wrong") match.wrong();
      if (why.code === "factor-wrong" && proof === "totp") totp.wrong();
      throw why;
    }
    await again();
  };
  const yes = [
    hasPasskey && question.factors.includes("passkey") ? "passkey" : null,
    me.totp && question.factors.includes("totp") ? "totp" : null,
  ].filter(Boolean);
  const no = hasPasskey ? "passkey" : me.totp ? "totp" : null;
  const approve = (proof, label) => action(label, { class: "yes" }, () => send("approve", proof));
  const code = h("code", {}, `countersign approve ${question.facts.id}`);
  const approving = () => [
    h("h2", {}, "Publish exactly this?"),
    yes.length ? match.field : null,
    yes[0] === "passkey" ? approve("passkey", "Approve with passkey") : null,
    yes[0] === "totp" ? [totp.field, approve("totp", "Approve")] : null,
    yes[1] === "totp"
      ? h("details", {}, h("summary", {}, "Use an authenticator code instead"), totp.field, approve("totp", "Approve with code"))
      : null,
    yes.length ? null : h("p", {}, `The policy wants ${question.factors.join(" or ")} here, which this browser cannot give. In a terminal: `, code),
  ];
  const waits = status.state === "pending" && !answered;
  const mayApprove = waits && !doubt;
  const thanks = waits ? "You can deny it." : answered ? "You have approved it. You can still stop it." : "It is approved. You can still stop it.";
  // Where only codes are at hand, the one field serves both answers.
  const ownField = no === "totp" && !(mayApprove && yes.includes("totp"));
  return h(
    "section",
    { class: "answer", "aria-label": "Your answer", "data-errors": true },
    mayApprove ? approving() : h("h2", {}, thanks),
    no
      ? h(
          "details",
          { class: "no" },
          h("summary", {}, "Deny"),
          h("label", { for: "reason" }, "Why? The job's log shows it. May stay empty."),
          reason,
          ownField ? totp.field : null,
          no === "totp" && !ownField ? h("p", {}, "Type your authenticator code above first.") : null,
          action("Deny", { class: "bad" }, () => send("deny", no)),
          action("Deny and freeze", { class: "bad" }, () => send("deny-and-freeze", no)),
          h("p", {}, h("small", {}, "Frozen, nothing of these packages is published until two people thaw them.")),
        )
      : null,
  );
}

/** A field for six digits: typed by a person, never filled in. */
function digits(id, label, help) {
  const described = { "aria-describedby": `${id}-help`, autocomplete: "off", inputmode: "numeric" };
  const input = h("input", { id, name: id, maxlength: 9, ...described });
  input.addEventListener("input", () => input.removeAttribute("aria-invalid"));
  const again = () => {
    input.setAttribute("aria-invalid", "true");
    input.focus();
    input.select();
  };
  return {
    field: h("div", { class: "digits" }, h("label", { for: id }, label), h("small", { id: `${id}-help` }, help), input),
    // A typing error must not cost one of three tries.
    value: () => {
      const text = input.value.replaceAll(/\s/g, "");
      if (/^[0-9]{6}$/.test(text)) return text;
      again();
      throw new Error(`${label}: type six digits. ${help}`);
    },
    wrong: again,
  };
}
