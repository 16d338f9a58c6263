// The pages that have no place in the bar of a phone.

import { signed } from "./api.js";
import { fill, goesTo, h } from "./dom.js";

export async function more(main, { signal }) {
  const me = await signed("GET", "/v1/devices", undefined, signal);
  if (signal.aborted) return;
  const groups = me.groups.length ? `Groups: ${me.groups.join(", ")}.` : "In no group.";
  fill(
    main,
    h("h1", { tabindex: -1 }, me.person),
    h("p", { class: "lead" }, me.admin ? "Admin. " : "", groups),
    goesTo("/intents", "intents", "Announced releases", "Say what is meant before its job asks"),
    goesTo("/devices", "devices", "My devices", "Phones, terminals, passkeys"),
    goesTo("/notifications", "bell", "Notifications", "How you are told that something waits"),
    goesTo("/log", "history", "The log", "What this browser saw of it"),
    me.admin ? goesTo("/admin", "admin", "Admin", "Tokens and their age, people, alarms") : null,
  );
}
