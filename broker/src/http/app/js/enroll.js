// An invite becomes this browser's device and its person's second factors.

import { enrolmentBytes } from "./canonical.js";
import * as device from "./device.js";
import { open } from "./api.js";
import * as passkey from "./passkey.js";
import { action, fill, h } from "./dom.js";
import { follow } from "./witness.js";

export async function enroll(main, { go }) {
  // The invite stands behind the #, which browsers send to nobody.
  const invite = location.hash.slice(1);
  if (!/^csi_[A-Za-z0-9_-]{48}$/.test(invite)) {
    return fill(
      main,
      h("h1", {}, "Enrol this browser"),
      h("p", {}, invite ? "This invite is not whole; it may have been cut. Open the link again, or ask for it once more." : "Open the link of your invite on the phone or computer that you will answer with. An admin makes it."),
    );
  }
  const before = await device.known();
  const label = h("input", { id: "name", maxlength: 60, autocomplete: "off", value: guess() });
  fill(
    main,
    h("h1", {}, "Enrol this browser"),
    h("p", {}, "It gets a key of its own, which cannot be taken out of it. You add a passkey, or an authenticator app, and answer with that."),
    before ? h("p", { class: "notice warn" }, `This browser is a device of ${before.person} already. Going on replaces that.`) : null,
    h("div", { "data-errors": true }, h("label", { for: "name" }, "A name for this device"), label, action("Go on", { class: "yes" }, () => claim(main, invite, label.value.trim() || guess(), go))),
  );
}

function guess() {
  const mobile = navigator.userAgentData?.mobile ?? /Mobi/.test(navigator.userAgent);
  return mobile ? "phone" : "browser";
}

async function claim(main, invite, name, go) {
  const made = await device.create();
  const asked = {
    invite,
    public_key: made.publicKey,
    signature: await device.sign(made, await enrolmentBytes(invite, name)),
    device_name: name,
    kind: "browser",
  };
  const first = await open("POST", "/v1/enroll", asked);
  if (first.device !== made.id) throw new Error("The broker enrolled another device. Do not go on; tell its admin.");
  // A further device is enrolled by this one call: whoever made the invite has proved it.
  if (first.done) return finished(first, made, "/devices", go);
  factors(main, asked, first, made, go);
}

async function finished(done, made, page, go) {
  const status = await open("GET", "/v1/status");
  await device.keep({ key: made.key, id: made.id, person: done.person, logKey: status.log_key });
  // From its first moment on this browser is a witness of the log.
  await follow().catch(() => {});
  history.replaceState({}, "", page);
  document.body.toggleAttribute("data-stranger", false);
  await go(page);
}

/** The second factors: a passkey where there are such, an authenticator app elsewhere, or both. */
function factors(main, asked, first, made, go) {
  const finish = async (more) => {
    await finished(await open("POST", "/v1/enroll", { ...asked, ...more }), made, "/", go);
  };
  const code = h("input", { id: "code", inputmode: "numeric", autocomplete: "one-time-code", maxlength: 9 });
  const withApp = () => [
    secret(first),
    h("label", { for: "code" }, "The code that the app shows"),
    code,
    action("Enrol with this code", { class: "yes" }, () => finish({ totp: code.value.replaceAll(/\s/g, "") })),
  ];
  const canPasskey = Boolean(first.passkey) && passkey.available;
  fill(
    main,
    h("h1", {}, `Welcome, ${first.person}`),
    canPasskey
      ? h(
          "section",
          { class: "card", "data-errors": true },
          h("h2", {}, "Make a passkey"),
          h("p", {}, "Your face, finger or screen lock answers, and only at this address. The best choice."),
          action("Make a passkey", { class: "yes" }, async () => finish({ passkey: await passkey.create(first.passkey) })),
        )
      : null,
    canPasskey
      ? h("details", { "data-errors": true }, h("summary", {}, "No passkey: use an authenticator app"), withApp())
      : h("section", { class: "card", "data-errors": true }, h("h2", {}, "Set up an authenticator app"), withApp()),
  );
}

/** A secret for an authenticator app: for its camera, for this phone, and to be typed. */
export function secret({ otpauth, qr: rows }) {
  const typed = new URL(otpauth).searchParams.get("secret") ?? "";
  return [
    h("p", {}, "Scan this with an authenticator app, or ", h("a", { href: otpauth }, "open it on this phone"), ", or type the secret."),
    rows ? qr(rows) : null,
    h("p", { class: "digest" }, typed.match(/.{1,4}/g).map((group) => h("span", {}, group))),
  ];
}

/** A QR code from rows of 0 and 1. */
export function qr(rows) {
  const side = rows.length;
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", `-4 -4 ${side + 8} ${side + 8}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "QR code");
  svg.setAttribute("class", "qr");
  const dark = rows.flatMap((row, y) => [...row].map((cell, x) => (cell === "1" ? `M${x} ${y}h1v1h-1z` : "")));
  const path = document.createElementNS(namespace, "path");
  path.setAttribute("d", dark.join(""));
  svg.append(path);
  return svg;
}
