// Releases that are announced before a job asks.

import { hex, intentBytes, random, sha256 } from "./canonical.js";
import { known, now, sign } from "./device.js";
import { signed } from "./api.js";
import { factor } from "./factor.js";
import * as passkey from "./passkey.js";
import { action, fill, h, nothing } from "./dom.js";
import { name, time } from "./format.js";
import { follow } from "./witness.js";

/** How long an announcement may be good for, in minutes. */
const LIVES = [
  [30, "30 minutes"],
  [120, "2 hours"],
  [1440, "24 hours"],
];

/** How an announcement that is over is shown; a live one stands out. */
const TONES = { live: "good", spent: null, withdrawn: "bad", expired: null };

/** What it gains a request that fits it, by how much it names. */
const NAMES = {
  versions: "A request that fits it is shown as announced. It still needs answers.",
  commit: "A request that fits it is shown as announced, and counts as a yes where the policy says so.",
  bytes: "A request for these very bytes counts as a yes.",
};

export async function intents(main, { signal, again }) {
  const [me, device, box] = await Promise.all([
    signed("GET", "/v1/devices", undefined, signal),
    known(),
    signed("GET", "/v1/intents", undefined, signal),
  ]);
  if (signal.aborted) return;
  const { field, proof } = factor(me);
  fill(
    main,
    h("h1", { tabindex: -1 }, "Announced releases"),
    h("p", { class: "lead" }, "Say what is about to be released, before its job asks. Approvers see that it was meant."),
    form(me, device, again),
    box.intents.length ? field : null,
    h("h2", {}, "Announced"),
    box.intents.length
      ? h("ul", { class: "cards" }, box.intents.map((intent) => card(intent, proof, again)))
      : nothing("intents", "Nothing is announced."),
  );
}

/** Files are announced from a terminal, where they lie: this names versions, and the commit if it is given. */
function form(me, device, again) {
  const hasPasskey = passkey.available && me.passkeys.length > 0;
  const entry = (id, attributes) => h("input", { id, autocomplete: "off", autocapitalize: "none", spellcheck: "false", ...attributes });
  const item = entry("item", { placeholder: "npm:@acme/left@1.4.2" });
  const commit = entry("commit", { maxlength: 64 });
  const code = entry("announce-code", { inputmode: "numeric", maxlength: 9 });
  const life = h("select", { id: "life" }, LIVES.map(([minutes, text]) => h("option", { value: minutes }, text)));
  const announce = async () => {
    // An announcement can count as a yes.
    await follow();
    const statement = {
      items: [meant(item.value.trim())],
      commit: commit.value.trim() || undefined,
      expires: now() + 60 * Number(life.value),
      device: device.id,
      time: now(),
      nonce: hex(random(16)),
    };
    const bytes = intentBytes(statement);
    const digest = await sha256(bytes);
    const factor = hasPasskey
      ? { passkey: await passkey.prove("intend", digest, hex(digest)) }
      : { totp: code.value.replaceAll(/\s/g, "") };
    await signed("POST", "/v1/intents", { statement, signature: await sign(device, bytes), ...factor });
    await again();
  };
  return h(
    "details",
    { class: "card" },
    h("summary", {}, "Announce a release"),
    h(
      "div",
      { "data-errors": true },
      h("label", { for: "item" }, "Package and version"),
      h("small", {}, "With its registry, like npm:@acme/left@1.4.2"),
      item,
      h("label", { for: "commit" }, "Commit, in full (may stay empty)"),
      commit,
      h("label", { for: "life" }, "Good for"),
      life,
      hasPasskey ? null : [h("label", { for: "announce-code" }, "Authenticator code"), code],
      action(hasPasskey ? "Announce with passkey" : "Announce", { class: "yes" }, announce),
      h("p", {}, h("small", {}, "Name the very bytes from a terminal: ", h("code", {}, "countersign intend … --file"))),
    ),
  );
}

/** `npm:@acme/left@1.4.2`, in its parts. */
function meant(text) {
  const [, registry, named, version] = /^([^:\s]+):([^\s]+)@([^@\s]+)$/.exec(text) ?? [];
  if (!version) throw new Error("Name registry, package and version, like npm:@acme/left@1.4.2.");
  return { registry, package: named, version };
}

function card(intent, proof, again) {
  const live = intent.state === "live";
  const withdraw = async () => {
    await signed("DELETE", `/v1/intents/${intent.id}`, await proof("withdraw-intent", intent.id));
    await again();
  };
  const files = intent.items.flatMap((item) => item.files ?? []);
  return h(
    "li",
    { class: "card", "data-errors": true },
    intent.items.map((item) => h("strong", {}, name(`${item.registry}:${item.package}@${item.version}`))),
    h("span", { class: "row" }, h("span", { class: "chip", "data-tone": TONES[intent.state] ?? null }, intent.state), intent.mine ? "by you" : `by ${intent.person}`),
    h("span", {}, "announced ", time(intent.made)),
    live ? h("span", {}, "good until ", time(intent.expires)) : null,
    intent.commit ? h("span", {}, "commit ", h("code", {}, intent.commit)) : null,
    files.length ? h("span", {}, "files ", files.map((file) => file.name).join(", ")) : null,
    live ? h("p", { class: "dim" }, NAMES[intent.names] ?? "") : null,
    intent.ended_by ? h("span", {}, `ended by ${intent.ended_by}`) : null,
    intent.request ? h("p", { class: "lines" }, h("a", { href: `/r/${intent.request}` }, "The request that was approved with it")) : null,
    live ? action(`Withdraw ${intent.items[0].version}`, { class: "bad" }, withdraw) : null,
  );
}
