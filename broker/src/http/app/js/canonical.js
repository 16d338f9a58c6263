// One byte string for one meaning, as docs/ARCHITECTURE.md and proto/src/canonical.rs have it: every field is its
// length as a 64-bit big-endian number and then its bytes. What a person approves is computed here, from what the
// page shows, and never taken from the broker.

const utf8 = new TextEncoder();

export class Canonical {
  #parts = [];

  constructor(tag) {
    this.text(tag);
  }

  bytes(bytes) {
    const length = new Uint8Array(8);
    new DataView(length.buffer).setBigUint64(0, BigInt(bytes.length));
    this.#parts.push(length, bytes);
    return this;
  }

  text(text) {
    return this.bytes(utf8.encode(text));
  }

  number(n) {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(n));
    return this.bytes(bytes);
  }

  maybe(text) {
    return text === undefined || text === null ? this.number(0) : this.number(1).text(text);
  }

  finish() {
    const out = new Uint8Array(this.#parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of this.#parts) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  }
}

export async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function unhex(text) {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

export function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
}

export function unbase64url(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
}

export function random(count) {
  return crypto.getRandomValues(new Uint8Array(count));
}

/** The digest that people approve (design: RequestDigest), from a request's facts. */
export async function requestDigest(facts) {
  const c = new Canonical("countersign/request/v1").text(facts.id).number(facts.items.length);
  for (const item of facts.items) {
    const files = item.files ?? [];
    c.text(item.registry).text(item.package).text(item.version).maybe(item.tag).number(files.length);
    for (const file of files) c.text(file.name).number(file.size).text(file.digest);
  }
  const claims = Object.entries(facts.caller.claims).sort(([a], [b]) => (bytewise(a) < bytewise(b) ? -1 : 1));
  c.text(facts.caller.issuer).text(facts.caller.subject).number(claims.length);
  for (const [name, value] of claims) c.text(name).text(value);
  c.maybe(facts.caller.run_url).text(facts.policy).text(facts.job_key).number(facts.expires);
  return sha256(c.finish());
}

/** Names in the order of their UTF-8 bytes, which is that of the broker. */
function bytewise(text) {
  return hex(utf8.encode(text));
}

/** What a device signs: decision, digest, device, time, nonce. */
export function statementBytes(statement) {
  return new Canonical("countersign/answer/v1")
    .text(statement.decision)
    .bytes(unhex(statement.request_digest))
    .text(statement.device)
    .number(statement.time)
    .text(statement.nonce)
    .finish();
}

/** What a device signs to announce a release. */
export function intentBytes(statement) {
  const c = new Canonical("countersign/intent/v1").number(statement.items.length);
  for (const item of statement.items) {
    const files = item.files ?? [];
    c.text(item.registry).text(item.package).text(item.version).maybe(item.tag).number(files.length);
    for (const file of files) c.text(file.name).text(file.digest);
  }
  c.maybe(statement.commit).number(statement.expires).text(statement.device).number(statement.time);
  return c.text(statement.nonce).finish();
}

/** What a passkey signs for one act about one digest. */
export async function passkeyChallenge(act, digest, nonce) {
  const c = new Canonical("countersign/passkey/v1").text(act).bytes(digest).bytes(nonce);
  return sha256(c.finish());
}

/** What a change of devices or factors is about. */
export async function changeDigest(change, object) {
  return sha256(new Canonical("countersign/change/v1").text(change).text(object).finish());
}

/** What the enrolling device signs: the invite's hash (of prefix and secret, without the checksum) and its own name. */
export async function enrolmentBytes(invite, name) {
  const secret = unbase64url(invite.slice(4)).slice(0, 32);
  const hash = await sha256(Uint8Array.of(...utf8.encode(invite.slice(0, 4)), ...secret));
  return new Canonical("countersign/enrol/v1").bytes(hash).text(name).finish();
}
