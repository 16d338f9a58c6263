// This person's devices and factors.

import { signed } from "./api.js";
import { fill, h } from "./dom.js";
import { name, time } from "./format.js";

export async function devices(main, { signal }) {
  const me = await signed("GET", "/v1/devices");
  if (signal.aborted) return;
  fill(
    main,
    h("h1", {}, me.person),
    h("p", {}, me.admin ? "Admin. " : "", me.groups.length ? `Groups: ${me.groups.join(", ")}.` : "In no group."),
    h("h2", {}, "Devices"),
    h("ul", { class: "cards" }, me.devices.map((device) =>
      h("li", { class: "card" }, h("strong", {}, name(device.name), device.this ? " (this one)" : ""), h("span", {}, device.kind, " · since ", time(device.enrolled)), h("code", {}, device.id)),
    )),
    h("h2", {}, "Passkeys"),
    me.passkeys.length
      ? h("ul", { class: "cards" }, me.passkeys.map((passkey) =>
          h("li", { class: "card" }, h("strong", {}, name(passkey.name)), h("span", {}, "since ", time(passkey.enrolled), passkey.last_used ? [" · used ", time(passkey.last_used)] : " · never used")),
        ))
      : h("p", { class: "empty" }, "None."),
    h("h2", {}, "Authenticator app"),
    h("p", {}, me.totp ? "Set up." : "None."),
  );
}
