// Calls to the broker.

import { known, proof } from "./device.js";

/** A broker's no: `code` is stable, `message` and `detail` are for people. */
export class Problem extends Error {
  constructor(body) {
    super(body.title ?? "The broker did not understand.");
    this.code = body.code ?? "unknown";
    this.detail = body.detail ?? "";
  }
}

/** Nobody answered. */
export class Offline extends Error {
  constructor() {
    super("The broker cannot be reached.");
    this.detail = "Look at your connection and try again. Nothing was sent.";
  }
}

/** No device of this browser is enrolled. */
export class NotEnrolled extends Error {
  constructor() {
    super("This browser is not one of your devices.");
  }
}

// The page itself brings a nonce, so that the first call needs no second attempt.
let nonce = document.querySelector('meta[name="call-nonce"]')?.content ?? "";

async function sent(method, path, body, headers, signal) {
  const json = body === "" ? {} : { "content-type": "application/json" };
  const what = { method, headers: { ...headers, ...json, accept: "application/json" }, redirect: "error", signal };
  if (body !== "") what.body = body;
  try {
    const reply = await fetch(path, what);
    reachable(true);
    return reply;
  } catch (why) {
    if (signal?.aborted) throw why;
    reachable(false);
    throw new Offline();
  }
}

/** Says on the page whether anything can be answered now. */
export function reachable(is) {
  const place = document.querySelector(".offline");
  if (document.body.hasAttribute("data-offline") === !is) return;
  document.body.toggleAttribute("data-offline", !is);
  const text = "You are offline. What is shown may be old, and nothing can be answered until you are back.";
  place.textContent = is ? "" : text;
  // Whatever the page shows is asked for anew.
  if (is) dispatchEvent(new Event("countersign-back"));
}

async function read(reply) {
  const body = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Problem(body);
  return body;
}

/** A call that nobody signs. */
export async function open(method, path, given) {
  return read(await sent(method, path, given === undefined ? "" : JSON.stringify(given), {}));
}

/** A call signed by this browser's device. */
export async function signed(method, path, given, signal) {
  const device = await known();
  if (!device) throw new NotEnrolled();
  const body = given === undefined ? "" : JSON.stringify(given);
  for (let attempt = 0; ; attempt++) {
    const dpop = await proof(device, method, path, body, nonce);
    const reply = await sent(method, path, body, { dpop }, signal);
    const fresh = reply.headers.get("dpop-nonce");
    if (fresh && attempt === 0) {
      nonce = fresh;
      continue;
    }
    return read(reply);
  }
}
