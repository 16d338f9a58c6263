// A real OpenID provider for the tests: oauth2-mock-server serves discovery and keys, and this file adds what a
// test needs to play every caller, honest or not.
//
//   POST /mint           {claims, header?, alg?, kid?} -> {token}. What `claims` and `header` say is what is signed: a
//                        default (iss, iat, exp, jti) stands only where they are silent, and null removes it.
//                        `claims` may be a string: then exactly these bytes are signed (duplicate keys, broken JSON).
//   POST /keys           {alg} -> {kid}. Adds a key, as an issuer that rotates does.
//   GET  /actions-token?audience=A   with `Authorization: Bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN` -> {value}. What a
//                        forge's runner offers to its jobs; the claims are those in the file $ACTIONS_CLAIMS.
//
// Prints one JSON line {port, url} when it listens. With --until-stdin-ends it ends when its parent is gone, so that
// a killed test leaves nothing behind.

import { createHash, createPrivateKey, randomUUID, sign, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { OAuth2Issuer, OAuth2Service } from "oauth2-mock-server";

const MAX_BODY = 256 * 1024;
const LIFE_SECONDS = 300;

const issuer = new OAuth2Issuer();
const newest = { RS256: await issuer.keys.generate("RS256"), ES256: await issuer.keys.generate("ES256") };
const service = new OAuth2Service(issuer);

function mint({ claims = {}, header = {}, alg = "RS256", kid }) {
  const key = kid ? issuer.keys.toJSON(true).find((k) => k.kid === kid) : newest[alg];
  if (!key) throw new Error(`no key for alg ${alg}, kid ${kid}`);
  const now = Math.floor(Date.now() / 1000);
  const defaults = { iss: issuer.url, iat: now, exp: now + LIFE_SECONDS, jti: randomUUID() };
  const payload = typeof claims === "string" ? claims : JSON.stringify(withoutNulls({ ...defaults, ...claims }));
  const head = JSON.stringify(withoutNulls({ typ: "JWT", alg: key.alg, kid: key.kid, ...header }));
  const signed = `${Buffer.from(head).toString("base64url")}.${Buffer.from(payload).toString("base64url")}`;
  const privateKey = createPrivateKey({ key, format: "jwk" });
  const signature = sign("sha256", Buffer.from(signed), { key: privateKey, dsaEncoding: "ieee-p1363" });
  return `${signed}.${signature.toString("base64url")}`;
}

const withoutNulls = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== null));

function actionsToken(request, audience) {
  const wanted = process.env.ACTIONS_ID_TOKEN_REQUEST_TOKEN;
  const hash = (text) => createHash("sha256").update(text).digest();
  // A scheme's case does not matter (RFC 9110, section 11.1): pdm writes it small.
  const given = (request.headers.authorization ?? "").replace(/^bearer /i, "Bearer ");
  if (!wanted || !timingSafeEqual(hash(given), hash(`Bearer ${wanted}`))) return undefined;
  const claims = JSON.parse(readFileSync(process.env.ACTIONS_CLAIMS, "utf8"));
  return mint({ claims: { ...claims, ...(audience === null ? {} : { aud: audience }) } });
}

async function body(request) {
  let text = "";
  for await (const chunk of request) {
    text += chunk;
    if (text.length > MAX_BODY) throw new Error("body too large");
  }
  return JSON.parse(text || "{}");
}

const server = createServer(async (request, response) => {
  const reply = (status, value) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(value));
  };
  const url = new URL(request.url, "http://127.0.0.1");
  try {
    switch (`${request.method} ${url.pathname}`) {
      case "POST /mint":
        return reply(200, { token: mint(await body(request)) });
      case "POST /keys": {
        const key = await issuer.keys.generate((await body(request)).alg ?? "RS256");
        newest[key.alg] = key;
        return reply(200, { kid: key.kid });
      }
      case "GET /actions-token": {
        const value = actionsToken(request, url.searchParams.get("audience"));
        return value === undefined ? reply(401, { message: "wrong bearer" }) : reply(200, { value });
      }
      default:
        return service.requestHandler(request, response);
    }
  } catch (error) {
    return reply(400, { message: String(error) });
  }
});

server.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => {
  const { port } = server.address();
  issuer.url = `http://127.0.0.1:${port}`;
  console.log(JSON.stringify({ port, url: issuer.url }));
});

if (process.argv.includes("--until-stdin-ends")) process.stdin.on("end", () => process.exit(0)).resume();
