// This person's devices and factors, and who is about to enrol anew. Each change is proved with the strongest factor
// that there is: a stolen session makes nothing of its own.

import { signed } from "./api.js";
import { factor } from "./factor.js";
import * as passkey from "./passkey.js";
import { action, fill, h } from "./dom.js";
import { name, time } from "./format.js";
import { qr, secret } from "./enroll.js";

export async function devices(main, { signal, again }) {
  const [me, recoveries, acts] = await Promise.all(["/v1/devices", "/v1/recoveries", "/v1/acts"].map((path) => signed("GET", path)));
  if (signal.aborted) return;
  const { field, proof } = factor(me);
  const invited = h("div", { "aria-live": "polite" });
  const change = async (path, given, what, object) => {
    const reply = await signed("POST", path, { ...given, ...(await proof(what, object)) });
    if (!reply.link) return again();
    fill(
      invited,
      h("p", {}, "Scan this with the new phone, or open the link there. It works once, for 15 minutes."),
      reply.qr ? qr(reply.qr) : null,
      h("p", { class: "digest" }, reply.link),
    );
  };
  const add = async () => {
    const { options } = await signed("POST", "/v1/passkeys/options");
    const credential = await passkey.create(options);
    const label = `passkey of ${new Date().toISOString().slice(0, 10)}`;
    await change("/v1/passkeys", { name: label, credential }, "add-passkey", credential.id);
  };
  fill(
    main,
    h("h1", {}, me.person),
    h("p", {}, me.admin ? "Admin. " : "", me.groups.length ? `Groups: ${me.groups.join(", ")}.` : "In no group."),
    acts.acts.length ? h("section", { "aria-label": "Acts of admins" }, h("h2", {}, "What admins asked for"), h("ul", { class: "cards" }, acts.acts.map((act) => actLine(act, me, change)))) : null,
    recoveries.recoveries.length ? recovering(recoveries.recoveries, me, change) : null,
    field,
    h("h2", {}, "Devices"),
    h("ul", { class: "cards" }, me.devices.map((device) => deviceLine(device, change))),
    h("div", { "data-errors": true }, action("Add a device", {}, () => change("/v1/devices/invite", {}, "add-device", me.person)), invited),
    h("h2", {}, "Passkeys"),
    me.passkeys.length ? h("ul", { class: "cards" }, me.passkeys.map((known) => passkeyLine(known, change))) : h("p", { class: "empty" }, "None."),
    passkey.available ? h("div", { "data-errors": true }, action("Add a passkey", {}, add)) : null,
    h("h2", {}, "Authenticator app"),
    h("p", {}, me.totp ? "Set up." : "None."),
    authenticator(me, change),
  );
}

/** A fresh secret for an app; it counts from the app's first code on. */
function authenticator(me, change) {
  const place = h("div", { "aria-live": "polite" });
  const begin = async () => {
    const offer = await signed("POST", "/v1/totp/offer", {});
    const first = h("input", { id: "first-code", inputmode: "numeric", autocomplete: "off", maxlength: 9 });
    const given = () => ({ setup: offer.setup, code: first.value.replaceAll(/\s/g, "") });
    fill(
      place,
      secret(offer),
      h("label", { for: "first-code" }, "The code that the new app shows"),
      first,
      action("Use this app", { class: "yes" }, () => change("/v1/totp", given(), "add-totp", offer.setup)),
    );
  };
  const what = me.totp ? "Set up another app in its place" : "Set up an authenticator app";
  return h("div", { "data-errors": true }, action(what, {}, begin), place);
}

function deviceLine(device, change) {
  return h(
    "li",
    { class: "card", "data-errors": true },
    h("strong", {}, name(device.name), device.this ? " (this one)" : ""),
    h("span", {}, device.kind, " · since ", time(device.enrolled)),
    h("code", {}, device.id),
    device.this
      ? null
      : h(
          "details",
          {},
          h("summary", {}, "Remove"),
          h("p", {}, "What it signed counts no more, from this moment on."),
          action(`Remove ${device.name}`, { class: "bad" }, () => change("/v1/devices/remove", { device: device.id }, "remove-device", device.id)),
        ),
  );
}

function passkeyLine(known, change) {
  return h(
    "li",
    { class: "card", "data-errors": true },
    h("strong", {}, name(known.name)),
    h("span", {}, "since ", time(known.enrolled), known.last_used ? [" · used ", time(known.last_used)] : " · never used"),
    h(
      "details",
      {},
      h("summary", {}, "Remove"),
      action(`Remove ${known.name}`, { class: "bad" }, () => change("/v1/passkeys/remove", { id: known.id }, "remove-passkey", known.id)),
    ),
  );
}

/** How a part of a policy that becomes another one stands out. */
const TONES = { weaker: "bad", stronger: "good", neutral: null };

/** What an admin asked for. Who may object does it here; another admin agrees in a terminal. */
function actLine(act, me, change) {
  const mayObject = me.admin || act.act.kind === "policy";
  return h(
    "li",
    { class: "card", "data-errors": true },
    h("strong", {}, words(act.act)),
    h("span", {}, act.by ? `asked for by ${act.by} ` : "read from the policy file ", time(act.asked)),
    (act.changes ?? []).map((one) => h("p", {}, h("span", { class: "chip", "data-tone": TONES[one.direction] ?? null }, one.direction), " ", one.words)),
    act.confirmed.length ? h("span", {}, `confirmed by ${act.confirmed.join(", ")}`) : null,
    act.missing ? h("span", {}, act.missing > 1 ? `${act.missing} admins must agree` : "another admin must agree", " in a terminal: ", h("code", {}, `countersign admin confirm ${act.id}`)) : null,
    act.ready ? h("span", {}, "holds if nobody objects ", time(act.ready)) : null,
    mayObject ? action("Object", { class: "bad" }, () => change(`/v1/acts/${act.id}/veto`, {}, "veto-act", act.id)) : null,
  );
}

/** What it is, for people. */
function words(act) {
  const groups = act.groups?.length ? `, groups ${act.groups.join(" ")}` : "";
  const admin = act.admin ? ", admin" : "";
  switch (act.kind) {
    case "invite":
      return `Invite ${act.person}${groups}${admin}`;
    case "change-person":
      return `Change ${act.person}${groups || ", no group"}${admin}`;
    case "remove-person":
      return `Remove ${act.person}`;
    case "policy":
      return "A policy that allows more";
    case "token-back":
      return `Go back to version ${act.kept} of token ${act.registry}:${act.scope}, and end version ${act.present}`;
    case "rotate-token":
      return `Rotate token ${act.registry}:${act.scope}${act.ends_old ? ", and keep no old one of it" : ""}`;
    default:
      return `${act.kind.replace("-", " ")} ${act.registry}:${act.scope}`;
  }
}

function recovering(all, me, change) {
  return h(
    "section",
    { class: "notice bad", "aria-label": "Recoveries", "data-errors": true },
    all.map((line) => [
      h("p", {}, `${line.person} is about to enrol anew. Asked by ${line.asked_by.join(" and ")}. `, line.ready ? ["An invite can be made ", time(line.ready), "."] : "One more person must ask."),
      line.person === me.person || me.admin || line.asked_by.includes(me.person)
        ? action("Call it off", { class: "bad" }, () => change("/v1/recoveries/cancel", { person: line.person }, "cancel-recovery", line.person))
        : null,
    ]),
  );
}
