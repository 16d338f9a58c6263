// This browser as a device: an Ed25519 key that the browser keeps and never gives out (not extractable), and calls
// signed by it. There is no cookie and no session, so no other page can call in this person's name.

import { base64url, hex, random, sha256 } from "./canonical.js";

const STORE = "device";

function database() {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open("countersign", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
  });
}

async function stored(mode, act) {
  const db = await database();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = db.transaction(STORE, mode);
      const asked = act(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(asked.result);
      transaction.onerror = () => reject(transaction.error);
    });
  } finally {
    db.close();
  }
}

/** This browser's device, if one was enrolled here: { key, id, person, logKey }. */
export function known() {
  return stored("readonly", (store) => store.get("this"));
}

/** Keeps a device that the broker has enrolled. What was seen of another log goes. */
export async function keep(device) {
  const last = await seen();
  if (last && last.key !== device.logKey) await stored("readwrite", (store) => store.delete("seen"));
  return stored("readwrite", (store) => store.put(device, "this"));
}

/** The last checkpoint of the log that was verified here, if any: { note, key, size, root, time }. */
export function seen() {
  return stored("readonly", (store) => store.get("seen"));
}

/** Keeps a verified checkpoint; an earlier one than the kept only where a person goes back to it. */
export async function keepSeen(point, back = false) {
  const last = await seen();
  if (back || !last || last.size <= point.size) await stored("readwrite", (store) => store.put(point, "seen"));
}

/** Keeps two checkpoints that cannot both be true. */
export function keepFork(both) {
  return stored("readwrite", (store) => store.put(both, `fork-${both.accepted}`));
}

/** Forgets this browser's device; the key is gone for good. */
export function forget() {
  return stored("readwrite", (store) => store.delete("this"));
}

/** A new key, which lies in this browser alone. */
export async function create() {
  let pair;
  try {
    pair = await crypto.subtle.generateKey({ name: "Ed25519" }, false, ["sign", "verify"]);
  } catch {
    throw new Error("This browser is too old: it cannot make an Ed25519 key. Update it, or use another one.");
  }
  const raw = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  return { key: pair.privateKey, publicKey: hex(raw), id: await idOf(raw) };
}

/** `dev_` and the first 130 bits of the key's SHA-256, base32 in lower case. */
async function idOf(raw) {
  const alphabet = "abcdefghijklmnopqrstuvwxyz234567";
  const bits = Array.from(await sha256(raw), (byte) => byte.toString(2).padStart(8, "0")).join("");
  const letters = bits.slice(0, 130).match(/.{5}/g);
  return "dev_" + letters.map((five) => alphabet[parseInt(five, 2)]).join("");
}

/** Ed25519 over bytes, hex. */
export async function sign(device, bytes) {
  return hex(await rawSignature(device, bytes));
}

async function rawSignature(device, bytes) {
  return new Uint8Array(await crypto.subtle.sign({ name: "Ed25519" }, device.key, bytes));
}

/** The `DPoP` header of one call (the shape of RFC 9449). */
export async function proof(device, method, path, body, nonce) {
  const utf8 = new TextEncoder();
  const claims = {
    htm: method,
    htu: location.origin + path,
    iat: now(),
    jti: hex(random(16)),
    nonce,
    ath: hex(await sha256(utf8.encode(body))),
  };
  const part = (json) => base64url(utf8.encode(JSON.stringify(json)));
  const signed = part({ alg: "EdDSA", typ: "dpop+jwt", kid: device.id }) + "." + part(claims);
  return signed + "." + base64url(await rawSignature(device, utf8.encode(signed)));
}

/** Seconds since 1970, by this device's clock. */
export function now() {
  return Math.floor(Date.now() / 1000);
}
