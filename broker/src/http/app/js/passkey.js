// Passkeys: made at enrolment, asked for one act at a time.

import { base64url, passkeyChallenge, unhex } from "./canonical.js";
import { signed } from "./api.js";

// A site that is an address instead of a name has none, nor does the broker then.
const named = !/^\[|^[0-9.]+$/.test(location.hostname);
export const available = named && "PublicKeyCredential" in window && "parseRequestOptionsFromJSON" in PublicKeyCredential;

/** A new passkey for the broker's options, as JSON. */
export async function create(options) {
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
  const credential = await asked(() => navigator.credentials.create({ publicKey }));
  return credential.toJSON();
}

/**
 * Asks the person for one act about one digest (32 bytes). The challenge is computed here from what is about to be
 * signed: a broker that asks for something else gets nothing.
 */
export async function prove(act, digest, digestHex) {
  const { nonce, options } = await signed("POST", "/v1/challenges", { act, digest: digestHex });
  if (options.challenge !== base64url(await passkeyChallenge(act, digest, unhex(nonce)))) {
    throw new Error("The broker asked this device to sign something else. Tell its admin.");
  }
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
  const credential = await asked(() => navigator.credentials.get({ publicKey }));
  return { nonce, credential: credential.toJSON() };
}

async function asked(ask) {
  try {
    return await ask();
  } catch (why) {
    if (why.name === "NotAllowedError") {
      throw new Error("The passkey was not used: cancelled, timed out, or none of yours is on this device.");
    }
    if (why.name === "InvalidStateError") throw new Error("This device has a passkey for you already.");
    throw why;
  }
}
