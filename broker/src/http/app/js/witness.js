// This browser as a witness of the broker's log: it keeps the last checkpoint that it verified, and approves nothing
// while the broker does not prove that its log still begins with that. So a database that was rolled back to an old
// copy is found (docs/LOG.md). The proofs are those of RFC 9162, the checkpoints those of C2SP tlog-checkpoint.

import { hex, sha256, unhex } from "./canonical.js";
import { keepFork, keepSeen, known, seen } from "./device.js";
import { open, signed } from "./api.js";

/** What is shown does not continue what was seen. */
export class Fork extends Error {
  constructor(message) {
    super(message);
    this.detail = "Approve nothing. Ask the admins, on another way, whether the broker was restored from a backup. Denying and freezing work as ever.";
  }
}

/** What this browser kept, what it is shown, and what is wrong with that (or nothing). Keeps nothing. */
export async function look(signal) {
  const device = await known();
  const kept = await seen();
  const shown = await signed("GET", `/v1/log/consistency?from=${kept?.size ?? 0}`, undefined, signal);
  // The key that was pinned at the enrolment; the first one shown, where the broker was sealed then.
  const key = device.logKey ?? kept?.key ?? (await open("GET", "/v1/status")).log_key;
  const point = await opened(shown.checkpoint, key).catch(() => null);
  const fork = point ? await wrong(kept, point, shown.proof) : new Fork("The broker's log is not signed by the key that this browser knows.");
  return { kept, point, fork };
}

/** The same, and keeps what holds; throws where it does not. */
export async function follow(signal) {
  const { point, fork } = await look(signal);
  if (fork) throw fork;
  await keepSeen(point);
  return point;
}

/** Goes on with a log that was restored, because somebody said so. Both checkpoints are kept: together they prove it. */
export async function accept({ kept, point }) {
  await keepFork({ kept: kept.note, shown: point.note, accepted: point.time });
  await keepSeen(point, true);
}

async function wrong(kept, point, proof) {
  if (!kept) return null;
  const when = new Date(kept.time * 1000).toISOString().slice(0, 16).replace("T", " ");
  if (point.size < kept.size) {
    return new Fork(`The broker's log has ${point.size} entries, but had ${kept.size} when this browser saw it last (${when} UTC): it was rolled back.`);
  }
  if (await continues(kept, point, proof)) return null;
  return new Fork(`The broker's log of ${point.size} entries does not begin with the ${kept.size} entries that this browser saw (${when} UTC): it was rolled back or rewritten.`);
}

/** Reads a checkpoint that this key signed. */
export async function opened(note, vkey) {
  const [, name, hash, base64] = /^([^+\s]+)\+([0-9a-f]{8})\+(.+)$/.exec(vkey);
  const at = note.lastIndexOf("\n\n") + 1;
  const text = note.slice(0, at);
  const lines = note.slice(at + 1).split("\n");
  const mine = lines.map((line) => line.split(" ")).filter(([dash, by, data]) => dash === "\u2014" && by === name && hex(bytes(data).slice(0, 4)) === hash);
  const key = bytes(base64);
  if (key[0] !== 1 || key.length !== 33 || mine.length !== 1) throw new Fork("not signed");
  const by = await crypto.subtle.importKey("raw", key.slice(1), { name: "Ed25519" }, false, ["verify"]);
  const holds = await crypto.subtle.verify({ name: "Ed25519" }, by, bytes(mine[0][2]).slice(4), new TextEncoder().encode(text));
  const [origin, size, root] = text.split("\n");
  const number = Number(size);
  if (!holds || origin !== name || !Number.isSafeInteger(number) || String(number) !== size || bytes(root).length !== 32) throw new Fork("not signed");
  return { note, key: vkey, size: number, root: hex(bytes(root)), time: Math.floor(Date.now() / 1000) };
}

function bytes(base64) {
  return Uint8Array.from(atob(base64 ?? ""), (letter) => letter.charCodeAt(0));
}

/** Whether the newer tree begins with the older one (RFC 9162, 2.1.4.2). Sizes may be beyond 32 bits. */
export async function continues(older, newer, proof) {
  if (older.size === newer.size) return proof.length === 0 && older.root === newer.root;
  if (older.size === 0) return proof.length === 0 && older.root === hex(await sha256(new Uint8Array()));
  const rest = [...proof];
  const first = whole(older.size) ? older.root : rest.shift();
  if (first === undefined) return false;
  const odd = (n) => n % 2 === 1;
  const half = (n) => Math.floor(n / 2);
  let [at, last] = [older.size - 1, newer.size - 1];
  while (odd(at)) [at, last] = [half(at), half(last)];
  let [old, now] = [first, first];
  for (const next of rest) {
    if (last === 0) return false;
    if (odd(at) || at === last) {
      [old, now] = [await node(next, old), await node(next, now)];
      while (!odd(at) && at !== 0) [at, last] = [half(at), half(last)];
    } else {
      now = await node(now, next);
    }
    [at, last] = [half(at), half(last)];
  }
  return last === 0 && old === older.root && now === newer.root;
}

/** Whether so many leaves make one complete tree. */
function whole(size) {
  let n = size;
  while (n % 2 === 0) n /= 2;
  return n === 1;
}

async function node(left, right) {
  return hex(await sha256(Uint8Array.of(1, ...unhex(left), ...unhex(right))));
}
