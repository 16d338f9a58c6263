// A real Chromium with virtual authenticators, driven by lines of JSON: {"id", "page", "do", …} in, {"id", "ok"} or
// {"id", "error"} out. Each page is a phone of its own: its own storage, its own authenticator.

import { createInterface } from "node:readline";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { chromium, devices } from "playwright-core";

const executablePath = process.env.COUNTERSIGN_CHROMIUM ?? "/usr/bin/chromium";
const flags = ["--no-sandbox", "--disable-gpu", "--disable-lcd-text", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath, args: flags });
const pages = new Map();
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Opens a phone, or a desktop; with an authenticator unless it shall have none. */
async function opened({ page: name, width, dark, authenticator, ca }) {
  const size = width ? { viewport: { width, height: width < 700 ? 780 : 900 } } : {};
  const shape = !width || width < 700 ? { ...devices["Pixel 7"], ...size } : size;
  const context = await browser.newContext({ ...shape, colorScheme: dark ? "dark" : "light", ignoreHTTPSErrors: Boolean(ca) });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const cdp = await context.newCDPSession(page);
  const state = { context, page, cdp, console: [], requests: [] };
  page.on("console", (message) => state.console.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => state.console.push(`error: ${error.message}`));
  page.on("request", (request) => state.requests.push(`${request.method()} ${request.url()}`));
  await cdp.send("Network.enable");
  state.bytes = 0;
  cdp.on("Network.loadingFinished", ({ encodedDataLength }) => (state.bytes += encodedDataLength));
  if (authenticator !== false) await authenticate(state);
  pages.set(name, state);
}

async function authenticate(state, imported) {
  await state.cdp.send("WebAuthn.enable");
  const options = { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true };
  state.authenticator = (await state.cdp.send("WebAuthn.addVirtualAuthenticator", { options })).authenticatorId;
  for (const credential of imported ?? []) {
    await state.cdp.send("WebAuthn.addCredential", { authenticatorId: state.authenticator, credential });
  }
}

const OPS = {
  open: opened,
  goto: async ({ url }, { page }) => {
    const reply = await page.goto(url);
    await page.waitForLoadState("load");
    return reply ? { status: reply.status(), headers: await reply.allHeaders() } : null;
  },
  click: ({ role = "button", name, exact = true }, { page }) => page.getByRole(role, { name, exact }).first().click(),
  summary: ({ name }, { page }) => page.locator("summary", { hasText: name }).first().click(),
  fill: ({ label, text }, { page }) => page.getByLabel(label, { exact: true }).first().fill(text),
  /** Waits for a text, and gives what the page's content says then. */
  sees: async ({ text }, { page }) => {
    await page.getByText(text, { exact: false }).locator("visible=true").first().waitFor();
    return page.locator("main").innerText();
  },
  text: (_, { page }) => page.locator("main").innerText(),
  path: (_, { page }) => page.evaluate(() => location.pathname + location.hash),
  /** Runs code of the test inside the page: what somebody could do who took the page over. */
  run: ({ code }, { page }) => page.evaluate(code),
  verified: ({ is }, { cdp, authenticator }) => cdp.send("WebAuthn.setUserVerified", { authenticatorId: authenticator, isUserVerified: is }),
  credentials: async (_, { cdp, authenticator }) => (await cdp.send("WebAuthn.getCredentials", { authenticatorId: authenticator })).credentials,
  /** Puts credentials of another phone into a fresh authenticator of this one. */
  steal: async ({ credentials }, state) => {
    await state.cdp.send("WebAuthn.removeVirtualAuthenticator", { authenticatorId: state.authenticator });
    await authenticate(state, credentials);
  },
  offline: ({ is }, { context }) => context.setOffline(is),
  /** A slower processor and network from now on. */
  slow: async ({ cpu, latency, kilobits }, { cdp }) => {
    const rate = (kilobits * 1000) / 8;
    await cdp.send("Emulation.setCPUThrottlingRate", { rate: cpu });
    await cdp.send("Network.emulateNetworkConditions", { offline: false, latency, downloadThroughput: rate, uploadThroughput: rate });
  },
  /** When something was first shown, in milliseconds from the click on the link. */
  paint: (_, { page }) => page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null),
  /** What Chromium misses before it offers to install the app. */
  installability: async (_, { page, cdp }) => {
    await page.evaluate(() => navigator.serviceWorker.ready.then(() => true));
    const { installabilityErrors } = await cdp.send("Page.getInstallabilityErrors");
    return installabilityErrors.map(({ errorId }) => errorId);
  },
  /** How far the page's content has jumped while it was built (layout shift, by the browser's own measure). */
  shift: (_, { page }) => page.evaluate(() => new Promise((resolve) => {
    const entries = [];
    new PerformanceObserver((list) => entries.push(...list.getEntries())).observe({ type: "layout-shift", buffered: true });
    requestAnimationFrame(() => setTimeout(() => resolve(entries.filter((e) => !e.hadRecentInput).reduce((sum, e) => sum + e.value, 0)), 50));
  })),
  console: (_, state) => state.console.splice(0),
  requests: (_, state) => state.requests.splice(0),
  bytes: (_, state) => {
    const sum = state.bytes;
    state.bytes = 0;
    return sum;
  },
  /** The whole page, with what stays at the edge of the window at the edge of the picture. */
  screenshot: async ({ path }, { page }) => {
    const size = page.viewportSize();
    const height = await page.evaluate(() => document.documentElement.scrollHeight);
    await page.setViewportSize({ width: size.width, height: Math.max(size.height, height) });
    await page.screenshot({ path, animations: "disabled", scale: "css" });
    await page.setViewportSize(size);
  },
  /** What axe finds, of the given impacts. The tool runs in the debugger's world: the page's policy stays as it is. */
  axe: async ({ impacts }, { cdp }) => {
    const world = await cdp.send("Page.getFrameTree");
    const { executionContextId } = await cdp.send("Page.createIsolatedWorld", { frameId: world.frameTree.frame.id, worldName: "axe" });
    await cdp.send("Runtime.evaluate", { expression: axe, contextId: executionContextId });
    const { result, exceptionDetails } = await cdp.send("Runtime.evaluate", { expression: "axe.run(document).then((r) => JSON.stringify(r.violations.map((v) => [v.impact, v.id, v.nodes.map((n) => n.html).slice(0, 3)])))", contextId: executionContextId, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return JSON.parse(result.value).filter(([impact]) => impacts.includes(impact));
  },
  /** Delivers a push message to the page's service worker, as a push service would; gives the notifications that it shows. */
  push: async ({ data }, state) => {
    const { page, context, cdp } = state;
    const origin = new URL(page.url()).origin;
    await context.grantPermissions(["notifications"], { origin });
    if (!state.registration) {
      const registered = new Promise((resolve) => cdp.on("ServiceWorker.workerRegistrationUpdated", ({ registrations }) => registrations[0] && resolve(registrations[0].registrationId)));
      await cdp.send("ServiceWorker.enable");
      state.registration = await registered;
    }
    const registrationId = state.registration;
    await page.evaluate(() => navigator.serviceWorker.ready.then(() => true));
    await cdp.send("ServiceWorker.deliverPushMessage", { origin, registrationId, data });
    const shown = () => page.evaluate(() => navigator.serviceWorker.ready.then((r) => r.getNotifications()).then((all) => all.map((n) => ({ title: n.title, body: n.body, data: n.data, tag: n.tag }))));
    for (let tries = 0; tries < 400; tries++) {
      const all = await shown();
      if (all.length) return all;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return [];
  },
  /** Taps the notification that is shown. */
  tap: async (_, { context }) => {
    const [worker] = context.serviceWorkers();
    await worker.evaluate(async () => {
      const [notification] = await registration.getNotifications();
      dispatchEvent(new NotificationEvent("notificationclick", { notification }));
    });
  },
  close: async (_, state) => state.context.close(),
};

const lines = createInterface({ input: process.stdin });
process.stdout.write('{"ready":true}\n');
for await (const line of lines) {
  const asked = JSON.parse(line);
  let reply;
  try {
    const state = pages.get(asked.page);
    if (!state && asked.do !== "open") throw new Error(`no page ${asked.page}`);
    reply = { id: asked.id, ok: (await OPS[asked.do](asked, state)) ?? null };
  } catch (why) {
    const said = pages.get(asked.page)?.console ?? [];
    const shown = await pages.get(asked.page)?.page.locator("body").innerText({ timeout: 1000 }).catch(() => "");
    reply = { id: asked.id, error: `${asked.do}: ${why.message}\nconsole: ${said.join("\n")}\npage: ${shown}` };
  }
  process.stdout.write(JSON.stringify(reply) + "\n");
}
await browser.close();
