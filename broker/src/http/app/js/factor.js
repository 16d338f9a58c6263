// The second factor of a change: a passkey where there is one, or a code that is typed beside it.

import { changeDigest, hex } from "./canonical.js";
import * as passkey from "./passkey.js";
import { h } from "./dom.js";

/** For a person (`/v1/devices`): a field for the code where one is needed, and the proof of one change. */
export function factor(me) {
  const byPasskey = passkey.available && me.passkeys.length > 0;
  const code = byPasskey ? null : h("input", { id: "code", inputmode: "numeric", autocomplete: "off", maxlength: 9 });
  const field = code && h("div", {}, h("label", { for: "code" }, "Code of your authenticator"), h("small", {}, "For each change below."), code);
  const proof = async (change, object) => {
    if (!byPasskey) return { totp: code.value.replaceAll(/\s/g, "") };
    const digest = await changeDigest(change, object);
    return { passkey: await passkey.prove("change-factors", digest, hex(digest)) };
  };
  return { field, proof };
}
