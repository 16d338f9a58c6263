// A witness for the tests (C2SP tlog-witness): it remembers the largest tree that it saw of a log, and cosigns what
// continues that. It shares no code with the broker: keys, hashes, proofs and signatures are made and checked here anew.
//
//   POST /add-checkpoint   as the specification says.
//   POST /control          {log?, mode?}: the vkey of the log that it knows; how it answers (below).
//   GET  /control          {vkey, size, calls, answers}: what it has seen, how often it was called, and with what it
//                          answered (as {status: count}).
//
// Modes: honest; and as somebody answers who is no witness: hang, junk, long, redirect, status, other-key (signs with a
// key of its own under the same name), other-name, other-body (signs another tree), no-time (signs the plain text),
// larger (says that it has seen a million entries), conflict (says so without a number), unproved (422), forbidden,
// drip (a byte now and then, for ever), future (its clock is a day ahead). And as honest ones may: sized (behind something
// that adds a charset to types), flap (after each cosignature it says that it has seen a million).
//
// Prints one JSON line {port, url} when it listens. With --until-stdin-ends it ends when its parent is gone. The name is
// the first argument.

import { createHash, createPublicKey, generateKeyPairSync, sign, verify } from "node:crypto";
import { createServer } from "node:http";

const MAX_BODY = 64 * 1024;
const name = process.argv[2] ?? "witness.example/w1";
const own = generateKeyPairSync("ed25519");
const stranger = generateKeyPairSync("ed25519");

const sha256 = (...parts) => createHash("sha256").update(Buffer.concat(parts)).digest();
const raw = (key) => Buffer.from(key.export({ format: "jwk" }).x, "base64url");
const keyId = (name, type, key) => sha256(Buffer.from(`${name}\n`), Buffer.from([type]), key).subarray(0, 4);
const ownKey = Buffer.concat([Buffer.from([4]), raw(own.publicKey)]);
const ownId = keyId(name, 4, raw(own.publicKey));
const vkey = `${name}+${ownId.toString("hex")}+${ownKey.toString("base64")}`;

const state = { log: undefined, mode: "honest", size: 0n, root: undefined, calls: 0, answers: {} };

function readLog(vkey) {
  const [name, , key] = vkey.split("+").map((part, at, all) => (at === 2 ? all.slice(2).join("+") : part));
  const bytes = Buffer.from(key, "base64");
  if (bytes[0] !== 1 || bytes.length !== 33) throw new Error("not a log's key");
  const x = bytes.subarray(1).toString("base64url");
  return {
    name,
    id: keyId(name, 1, bytes.subarray(1)),
    key: createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" }),
  };
}

// RFC 9162, 2.1.4.2, step by step.
function consistent(first, firstHash, second, secondHash, proof) {
  if (first === second) return proof.length === 0 && firstHash.equals(secondHash);
  if (first === 0n) return proof.length === 0;
  const path = [...proof];
  if (path.length === 0) return false;
  if ((first & (first - 1n)) === 0n) path.unshift(firstHash);
  let fn = first - 1n;
  let sn = second - 1n;
  while (fn & 1n) {
    fn >>= 1n;
    sn >>= 1n;
  }
  const node = (left, right) => sha256(Buffer.from([1]), left, right);
  let fr = path[0];
  let sr = path[0];
  for (const c of path.slice(1)) {
    if (sn === 0n) return false;
    if (fn & 1n || fn === sn) {
      fr = node(c, fr);
      sr = node(c, sr);
      if (!(fn & 1n)) {
        while (!(fn & 1n) && fn !== 0n) {
          fn >>= 1n;
          sn >>= 1n;
        }
      }
    } else {
      sr = node(sr, c);
    }
    fn >>= 1n;
    sn >>= 1n;
  }
  return sn === 0n && fr.equals(firstHash) && sr.equals(secondHash);
}

const decimal = (text) => {
  if (!/^(0|[1-9][0-9]*)$/.test(text)) throw new Error(`no number: ${text}`);
  return BigInt(text);
};

function parse(body) {
  const end = body.indexOf("\n\n");
  const [first, ...proof] = body.slice(0, end).split("\n");
  const note = body.slice(end + 2);
  const split = note.indexOf("\n\n");
  const text = note.slice(0, split + 1);
  const [origin, size, root, ...more] = text.split("\n");
  if (!first.startsWith("old ") || more.join("") !== "" || proof.length > 63 || !note.endsWith("\n")) {
    throw new Error("malformed");
  }
  return {
    old: decimal(first.slice(4)),
    proof: proof.map((line) => {
      const hash = Buffer.from(line, "base64");
      if (hash.length !== 32 || hash.toString("base64") !== line) throw new Error("no hash");
      return hash;
    }),
    text,
    origin,
    size: decimal(size),
    root: Buffer.from(root, "base64"),
    signatures: note.slice(split + 2).trimEnd().split("\n"),
  };
}

function isSigned(asked, log) {
  return asked.signatures.some((line) => {
    const [dash, of, data] = line.split(" ");
    const bytes = Buffer.from(data ?? "", "base64");
    if (dash !== "\u2014" || of !== log.name || !bytes.subarray(0, 4).equals(log.id)) return false;
    return verify(null, Buffer.from(asked.text), log.key, bytes.subarray(4));
  });
}

function cosign(text, by = own, as = name, id = ownId) {
  const now = Math.floor(Date.now() / 1000) + (state.mode === "future" ? 86_400 : 0);
  const time = Buffer.alloc(8);
  time.writeBigUInt64BE(BigInt(now));
  const header = state.mode === "no-time" ? "" : `cosignature/v1\ntime ${now}\n`;
  const signature = sign(null, Buffer.from(header + text), by.privateKey);
  return `\u2014 ${as} ${Buffer.concat([id, time, signature]).toString("base64")}\n`;
}

const SIZE = { "content-type": "text/x.tlog.size" };

/** [status, body, headers] of an honest witness. */
function judged(body) {
  let asked;
  try {
    asked = parse(body);
  } catch (error) {
    return [400, `${error.message}\n`];
  }
  const log = state.log;
  if (!log || asked.origin !== log.name) return [404, "unknown log\n"];
  if (!isSigned(asked, log)) return [403, "not signed by the log\n"];
  if (asked.old > asked.size) return [400, "old size beyond the checkpoint\n"];
  if (asked.old !== state.size) return [409, `${state.size}\n`, SIZE];
  if (asked.old === asked.size && state.root && !asked.root.equals(state.root)) return [409, `${state.size}\n`, SIZE];
  const before = state.root ?? Buffer.alloc(32);
  if (!consistent(asked.old, before, asked.size, asked.root, asked.proof)) return [422, "not consistent\n"];
  // Before the answer: what was cosigned is never forgotten.
  state.size = asked.size;
  state.root = asked.root;
  return [200, cosign(asked.text)];
}

function answered(body) {
  const text = body.slice(body.indexOf("\n\n") + 2).split("\n\n")[0] + "\n";
  switch (state.mode) {
    case "honest":
      return judged(body);
    case "junk":
      return [200, "<html>welcome\u0000</html>\n"];
    case "long":
      return [200, "x".repeat(1 << 20)];
    case "redirect":
      return [307, "", { location: "/elsewhere" }];
    case "status":
      return [500, "out of order\n"];
    case "other-key":
      return [200, cosign(text, stranger)];
    case "other-name":
      return [200, cosign(text, stranger, "other.example", keyId("other.example", 4, raw(stranger.publicKey)))];
    case "other-body":
      return [200, cosign(text.replace(/\n\d+\n/, "\n1\n"))];
    case "no-time":
      return [200, cosign(text)];
    case "larger":
      return [409, "1000000\n", SIZE];
    case "conflict":
      return [409, ""];
    case "unproved":
      return [422, ""];
    case "forbidden":
      return [403, "by another key\n"];
    case "future":
      return judged(body);
    case "sized": {
      const [status, said, headers] = judged(body);
      return [status, said, headers && { "content-type": `${headers["content-type"]}; charset=utf-8` }];
    }
    case "flap":
      if (state.agreed) {
        state.agreed = false;
        return [409, "1000000\n", SIZE];
      } else {
        const answer = judged(body);
        state.agreed = answer[0] === 200;
        return answer;
      }
    default:
      return undefined;
  }
}

async function read(request) {
  let text = "";
  request.setEncoding("utf8");
  for await (const chunk of request) {
    text += chunk;
    if (text.length > MAX_BODY) throw new Error("body too large");
  }
  return text;
}

const server = createServer(async (request, response) => {
  try {
    const body = await read(request);
    if (request.url === "/control") {
      if (request.method === "POST") {
        const { log, mode } = JSON.parse(body);
        if (log) state.log = readLog(log);
        if (mode) state.mode = mode;
      }
      const { size, calls, answers } = state;
      response.setHeader("content-type", "application/json");
      return response.end(JSON.stringify({ vkey, size: Number(size), calls, answers }));
    }
    state.calls += 1;
    if (request.method !== "POST" || request.url !== "/add-checkpoint") {
      state.answers.elsewhere = (state.answers.elsewhere ?? 0) + 1;
      return response.writeHead(404).end();
    }
    if (state.mode === "drip") {
      response.writeHead(200);
      const drop = setInterval(() => response.write("."), 300);
      return response.on("close", () => clearInterval(drop));
    }
    const answer = answered(body);
    // Who hangs takes the call, and says nothing.
    if (!answer) return;
    const [status, said, headers = {}] = answer;
    state.answers[status] = (state.answers[status] ?? 0) + 1;
    response.writeHead(status, headers).end(said);
  } catch (error) {
    response.writeHead(500).end(String(error.message));
  }
});

server.listen(0, "127.0.0.1", () => {
  const { port } = server.address();
  console.log(JSON.stringify({ port, url: `http://127.0.0.1:${port}` }));
});

if (process.argv.includes("--until-stdin-ends")) {
  process.stdin.on("end", () => process.exit(0)).on("error", () => process.exit(0)).resume();
}
