// How this person is told that something waits: by this browser's own push service, by ntfy, by a webhook.

import { signed } from "./api.js";
import { factor } from "./factor.js";
import { hex, sha256, unbase64url } from "./canonical.js";
import { action, fill, h } from "./dom.js";
import { name, time } from "./format.js";

/** The address that was given to the broker for this browser. */
const GIVEN = "push-address";

const available = "serviceWorker" in navigator && "PushManager" in window && "Notification" in window;

export async function notify(main, { signal, again }) {
  const [settings, me] = await Promise.all([signed("GET", "/v1/notify"), signed("GET", "/v1/devices")]);
  const { field, proof } = factor(me);
  const own = await subscription();
  const id = own && (await idOf(own.endpoint));
  if (signal.aborted) return;
  const here = settings.channels.some((channel) => channel.id === id);
  fill(
    main,
    h("h1", {}, "Notifications"),
    h("p", {}, "A notification says that something waits, and nothing else. What waits stands in the inbox all the same."),
    h("section", { class: "card", "data-errors": true }, h("h2", {}, "This browser"), thisBrowser(settings, here, again)),
    h("section", { "aria-label": "Channels", "data-errors": true }, h("h2", {}, "Channels"), field, channels(settings, proof, again)),
    h("section", { class: "card", "data-errors": true }, h("h2", {}, "Quiet hours"), quiet(settings, proof, again)),
    h("section", { class: "card", "data-errors": true }, h("h2", {}, "Add a channel"), more(again)),
    h("p", {}, h("small", {}, `Rung unannounced in the last day: ${settings.rings} of ${settings.rings_most}. Servers that the broker allows: ${settings.allowed.join(", ") || "none"}.`)),
  );
}

/** A channel's id, as the broker makes it of its address. */
async function idOf(endpoint) {
  const hash = await sha256(new TextEncoder().encode(`web-push ${endpoint}`));
  return hex(hash.slice(0, 16));
}

async function subscription() {
  if (!available) return null;
  const registration = await navigator.serviceWorker.getRegistration("/");
  return (await registration?.pushManager.getSubscription()) ?? null;
}

function thisBrowser(settings, here, again) {
  if (!available) return h("p", {}, "It has no push notifications. On an iPhone, put the app on the home screen first.");
  if (here) return h("p", {}, "Rings.");
  return [
    h("p", {}, "Does not ring."),
    action("Ring this browser", { class: "yes" }, async () => {
      if ((await Notification.requestPermission()) !== "granted") {
        throw new Error("Notifications are not allowed for this address. Allow them in the browser's settings.");
      }
      await give(settings.vapid, await subscribed(settings.vapid));
      await again();
    }),
  ];
}

async function subscribed(vapid) {
  const registration = await navigator.serviceWorker.ready;
  const options = { userVisibleOnly: true, applicationServerKey: unbase64url(vapid) };
  try {
    return await registration.pushManager.subscribe(options);
  } catch (why) {
    // One that was made for another broker's key stands in the way.
    if (why.name !== "InvalidStateError") throw new Error(`The browser's push service did not answer (${why.name}). Try again later.`);
    await (await registration.pushManager.getSubscription())?.unsubscribe();
    return registration.pushManager.subscribe(options);
  }
}

async function give(vapid, own) {
  const { endpoint, keys } = own.toJSON();
  const label = navigator.userAgentData?.mobile ?? /Mobi/.test(navigator.userAgent) ? "phone" : "browser";
  await signed("POST", "/v1/notify/channels", { kind: "web-push", endpoint, p256dh: keys.p256dh, auth: keys.auth, name: label });
  localStorage.setItem(GIVEN, endpoint);
}

/** Push services change addresses: the new one is given to the broker when the app is opened. */
export async function renew() {
  const given = localStorage.getItem(GIVEN);
  if (!given || !available || Notification.permission !== "granted") return;
  const own = await subscription();
  if (own?.endpoint === given) return;
  const { vapid } = await signed("GET", "/v1/notify");
  await give(vapid, own ?? (await subscribed(vapid)));
}

function channels(settings, proof, again) {
  if (!settings.channels.length) return h("p", { class: "empty" }, "None: nobody rings you.");
  const line = (channel) =>
    h(
      "li",
      { class: "card", "data-errors": true },
      h("strong", {}, name(channel.name)),
      h("span", {}, channel.kind, " at ", name(channel.host), ", since ", time(channel.added)),
      channel.failed
        ? h("p", { class: "notice bad" }, "Failed ", time(channel.failed.at), ": ", channel.failed.why)
        : h("span", {}, channel.delivered ? ["Delivered ", time(channel.delivered)] : "Not used yet"),
      action("Remove", { "aria-label": `Remove ${channel.name}` }, async () => {
        await signed("DELETE", `/v1/notify/channels/${channel.id}`, await proof("remove-channel", channel.id));
        await again();
      }),
    );
  return [
    h("ul", { class: "cards" }, settings.channels.map(line)),
    action("Send a test", {}, async () => {
      await signed("POST", "/v1/notify/test");
      // The broker sends beside the call.
      await new Promise((resolve) => setTimeout(resolve, 1500));
      await again();
    }),
  ];
}

function quiet(settings, proof, again) {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const input = h("input", { id: "quiet", autocomplete: "off", maxlength: 80, value: settings.quiet ?? `22:00-07:00 ${zone}` });
  const set = (hours) => async () => {
    const given = hours();
    await signed("PUT", "/v1/notify/quiet", { ...given, ...(await proof("quiet-hours", given.hours ?? "")) });
    await again();
  };
  return [
    h("p", {}, settings.quiet ? ["Set: ", h("b", {}, settings.quiet), ". "] : "None. ", "In them nothing rings that nobody announced, but alarms do."),
    h("label", { for: "quiet" }, "From, to and zone"),
    input,
    action("Set quiet hours", {}, set(() => ({ hours: input.value.trim() }))),
    settings.quiet ? action("No quiet hours", {}, set(() => ({}))) : null,
  ];
}

function more(again) {
  const address = h("input", { id: "address", type: "url", autocomplete: "off", maxlength: 1000, placeholder: "https://ntfy.example.org/topic" });
  const token = h("input", { id: "token", type: "password", autocomplete: "off", maxlength: 200 });
  const told = h("p", { class: "digest", role: "status" });
  const add = async (given) => {
    const added = await signed("POST", "/v1/notify/channels", given);
    if (added.secret) fill(told, "Signatures are checked with ", h("code", {}, added.secret), " (shown this once).");
    else await again();
  };
  return [
    h("label", { for: "address" }, "Address"),
    address,
    h("label", { for: "token" }, "Access token (ntfy; may stay empty)"),
    token,
    action("Add ntfy", {}, () => add({ kind: "ntfy", url: address.value.trim(), name: "ntfy", ...(token.value ? { token: token.value } : {}) })),
    action("Add webhook", {}, () => add({ kind: "webhook", url: address.value.trim(), name: "webhook" })),
    told,
  ];
}
