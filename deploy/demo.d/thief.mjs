// What the thief of a repository-admin token tries by hand, for `deploy/demo --attack`. No part of the product.
//
//   thief.mjs bearer <cst_|csc_|csi_>    prints a well-formed guess of a ticket, credential or invite
//   thief.mjs approve <facts.json>       approves with a right match code and a right TOTP code, by a device key of his own
//   thief.mjs upload <tgz> <package> <version>   publishes these bytes with the credential in the environment
//
// Prints one JSON line {status, body} a reply.

import { createHash, generateKeyPairSync, randomBytes, randomUUID, sign } from "node:crypto";
import { readFileSync } from "node:fs";

const sha256 = (...parts) => parts.reduce((h, p) => h.update(p), createHash("sha256")).digest();
const b64 = (value) => Buffer.from(value).toString("base64url");

function bearer(prefix) {
  const bytes = randomBytes(32);
  const sum = sha256("countersign/checksum/v1", prefix, bytes).subarray(0, 4);
  return prefix + b64(Buffer.concat([bytes, sum]));
}

async function call(method, url, headers, body) {
  const reply = await fetch(url, { method, headers: { "content-type": "application/json", ...headers }, body });
  return { status: reply.status, body: await reply.text(), nonce: reply.headers.get("dpop-nonce") };
}

// Field by field with its length before it, as the broker and every device compute it.
function canonical(...fields) {
  return Buffer.concat(
    fields.flatMap((field) => {
      const bytes = typeof field === "number" ? number(field) : Buffer.from(field);
      return [number(bytes.length), bytes];
    }),
  );
}

function number(n) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(n));
  return bytes;
}

function deviceId(publicKey) {
  const bits = [...sha256(publicKey)].map((b) => b.toString(2).padStart(8, "0")).join("");
  const letters = "abcdefghijklmnopqrstuvwxyz234567";
  return "dev_" + Array.from({ length: 26 }, (_, i) => letters[parseInt(bits.slice(i * 5, i * 5 + 5), 2)]).join("");
}

async function approve(facts) {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const device = deviceId(publicKey.export({ format: "der", type: "spki" }).subarray(-32));
  const time = Math.floor(Date.now() / 1000);
  const statement = { decision: "approve", request_digest: facts.digest, device, time, nonce: randomBytes(16).toString("hex") };
  const digest = Buffer.from(facts.digest.replace(/^.*:/, ""), "hex");
  const signed = canonical("countersign/answer/v1", "approve", digest, device, time, statement.nonce);
  const body = JSON.stringify({
    statement,
    signature: sign(null, signed, privateKey).toString("hex"),
    match_code: facts.match_code,
    totp: facts.totp,
  });
  const url = `${facts.broker}/v1/requests/${facts.id}/answer`;
  const proof = (nonce) => {
    const claims = { htm: "POST", htu: url, iat: time, jti: randomUUID(), nonce, ath: sha256(body).toString("hex") };
    const head = `${b64(JSON.stringify({ alg: "EdDSA", typ: "dpop+jwt", kid: device }))}.${b64(JSON.stringify(claims))}`;
    return `${head}.${b64(sign(null, Buffer.from(head), privateKey))}`;
  };
  let reply = await call("POST", url, { dpop: proof("") }, body);
  if (reply.nonce) reply = await call("POST", url, { dpop: proof(reply.nonce) }, body);
  return reply;
}

async function upload(file, name, version) {
  const registry = process.env.npm_config_registry.replace(/\/$/, "");
  const data = readFileSync(file);
  const hash = (algorithm, form) => createHash(algorithm).update(data).digest(form);
  const archive = `${name}-${version}.tgz`;
  const manifest = {
    name,
    version,
    description: "A package of the demo",
    license: "MIT",
    main: "index.js",
    _id: `${name}@${version}`,
    dist: {
      integrity: `sha512-${hash("sha512", "base64")}`,
      shasum: hash("sha1", "hex"),
      tarball: `${registry}/${name}/-/${archive}`,
    },
  };
  const body = JSON.stringify({
    _id: name,
    name,
    "dist-tags": { latest: version },
    versions: { [version]: manifest },
    access: null,
    _attachments: { [archive]: { content_type: "application/octet-stream", data: data.toString("base64"), length: data.length } },
  });
  const headers = { authorization: `Bearer ${process.env.YARN_NPM_AUTH_TOKEN}` };
  return call("PUT", `${registry}/${name.replace("/", "%2f")}`, headers, body);
}

const [verb, ...args] = process.argv.slice(2);
if (verb === "bearer") console.log(bearer(args[0]));
else {
  const reply = verb === "approve" ? await approve(JSON.parse(readFileSync(args[0], "utf8"))) : await upload(...args);
  console.log(JSON.stringify({ status: reply.status, body: reply.body }));
}
