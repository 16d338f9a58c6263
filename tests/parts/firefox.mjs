// A real Firefox with a push service of its own on this machine, driven by lines of JSON as browser.mjs is.
//
// The push service is the WebSocket that Firefox speaks to its own (autopush) and the address that applications post
// to (RFC 8030). It checks what a real one checks: the headers, and that the VAPID token (RFC 8292) is signed by the
// key that the browser was subscribed with, and is for this origin.

import { createInterface } from "node:readline";
import { createServer } from "node:http";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createPublicKey, randomUUID, verify } from "node:crypto";
import puppeteer from "puppeteer-core";
import { WebSocketServer } from "ws";

const executablePath = process.env.COUNTERSIGN_FIREFOX ?? "/usr/bin/firefox-esr";
const channels = new Map();
const posts = [];
let status = 201;
let waiting = [];

/** What is wrong with a message; null if nothing is. */
function wrong(request, body, channel) {
  const { authorization = "", ttl, "content-encoding": encoding } = request.headers;
  const [, token, key] = /^vapid t=([\w.-]+), k=([\w-]+)$/.exec(authorization) ?? [];
  if (!token) return `authorization: ${authorization}`;
  if (channel.key && channel.key !== key) return "another key than the subscription's";
  const [head, claims, signature] = token.split(".");
  const point = Buffer.from(key, "base64url");
  const jwk = { kty: "EC", crv: "P-256", x: point.subarray(1, 33).toString("base64url"), y: point.subarray(33).toString("base64url") };
  const signed = verify("sha256", Buffer.from(`${head}.${claims}`), { key: createPublicKey({ key: jwk, format: "jwk" }), dsaEncoding: "ieee-p1363" }, Buffer.from(signature, "base64url"));
  if (!signed) return "the token's signature does not hold";
  const { aud, exp, sub } = JSON.parse(Buffer.from(claims, "base64url"));
  if (aud !== origin || !sub || exp < Date.now() / 1000 || exp > Date.now() / 1000 + 86400) return `claims ${aud} ${exp} ${sub}`;
  if (!/^[0-9]+$/.test(ttl ?? "") || encoding !== "aes128gcm" || body.length > 4096) return "headers or size";
  return null;
}

const server = createServer(async (request, reply) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const body = Buffer.concat(pieces);
  const channel = channels.get(request.url.slice("/push/".length));
  const why = channel ? wrong(request, body, channel) : "no such subscription";
  posts.push({ why, headers: request.headers, size: body.length });
  if (!channel) return reply.writeHead(410).end();
  if (why) return reply.writeHead(401).end(why);
  if (status !== 201) return reply.writeHead(status).end();
  const version = randomUUID();
  const acknowledged = new Promise((resolve) => waiting.push({ version, resolve }));
  channel.socket.send(JSON.stringify({ messageType: "notification", channelID: channel.id, version, data: body.toString("base64url"), headers: { encoding: "aes128gcm" } }));
  posts.at(-1).code = await acknowledged;
  reply.writeHead(201, { location: `${origin}/m/${version}` }).end();
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${server.address().port}`;

new WebSocketServer({ server }).on("connection", (socket) => {
  const say = (message) => socket.send(JSON.stringify(message));
  socket.on("message", (text) => {
    const asked = JSON.parse(text);
    if (asked.messageType === "hello") return say({ messageType: "hello", status: 200, uaid: asked.uaid || randomUUID().replaceAll("-", ""), use_webpush: true });
    if (asked.messageType === "register") {
      const path = randomUUID();
      channels.set(path, { socket, id: asked.channelID, key: asked.key?.replace(/=+$/, "") });
      return say({ messageType: "register", status: 200, channelID: asked.channelID, pushEndpoint: `${origin}/push/${path}` });
    }
    if (asked.messageType === "unregister") {
      for (const [path, channel] of channels) if (channel.id === asked.channelID) channels.delete(path);
      return say({ messageType: "unregister", status: 200, channelID: asked.channelID });
    }
    if (asked.messageType === "ack") {
      for (const { version, code } of asked.updates) waiting.find((w) => w.version === version)?.resolve(code);
    }
  });
});

const profile = await mkdtemp(join(tmpdir(), "firefox-"));
const browser = await puppeteer.launch({
  browser: "firefox",
  executablePath,
  headless: true,
  userDataDir: profile,
  env: { ...process.env, HOME: profile },
  extraPrefsFirefox: {
    "dom.push.serverURL": origin.replace("http:", "ws:") + "/",
    "dom.push.testing.allowInsecureServerURL": true,
    "dom.push.connection.enabled": true,
    "permissions.default.desktop-notification": 1,
    // Without a desktop nobody else could show one.
    "alerts.useSystemBackend": false,
  },
});
const page = await browser.newPage();
page.setDefaultTimeout(30_000);
const said = [];
page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
page.on("pageerror", (error) => said.push(`error: ${error.message}`));

const shown = () => page.evaluate(() => navigator.serviceWorker.ready.then((r) => r.getNotifications()).then((all) => all.map((n) => ({ title: n.title, body: n.body, tag: n.tag, data: n.data }))));

const OPS = {
  goto: async ({ url }) => void (await page.goto(url)),
  click: async ({ name }) => void (await page.locator(`::-p-aria([name="${name}"][role="button"])`).click()),
  summary: async ({ name }) => void (await page.locator(`summary ::-p-text(${name})`).click()),
  fill: async ({ field, text }) => void (await page.locator(`#${field}`).fill(text)),
  sees: async ({ text }) => {
    await page.waitForFunction((text) => document.querySelector("main").innerText.includes(text), {}, text);
    return page.evaluate(() => document.querySelector("main").innerText);
  },
  run: ({ code }) => page.evaluate(code),
  console: () => said.splice(0),
  /** The notifications that are shown, once there are so many. */
  notifications: async ({ count }) => {
    for (let tries = 0; tries < 400; tries++) {
      const all = await shown();
      if (all.length >= count) return all;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return shown();
  },
  posts: () => posts,
  /** What the push service answers from now on. */
  answer: ({ status: next }) => void (status = next),
  /** The push service forgets all subscriptions. */
  forget: () => channels.clear(),
};

const lines = createInterface({ input: process.stdin });
process.stdout.write(JSON.stringify({ ready: true, push: origin }) + "\n");
for await (const line of lines) {
  const asked = JSON.parse(line);
  let reply;
  try {
    reply = { id: asked.id, ok: (await OPS[asked.do](asked)) ?? null };
  } catch (why) {
    const text = await page.evaluate(() => document.body.innerText).catch(() => "");
    reply = { id: asked.id, error: `${asked.do}: ${why.message}\nconsole: ${said.join("\n")}\npage: ${text}` };
  }
  process.stdout.write(JSON.stringify(reply) + "\n");
}
await browser.close();
await rm(profile, { recursive: true, force: true });
process.exit(0);
