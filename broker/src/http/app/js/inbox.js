// What waits for this person.

import { signed } from "./api.js";
import { fill, h } from "./dom.js";
import { name, time } from "./format.js";

export async function inbox(main, { signal }) {
  const box = await signed("GET", "/v1/inbox");
  if (signal.aborted) return;
  const lines = [...box.requests];
  for (let next = box.next; next; ) {
    const more = await signed("GET", `/v1/inbox?after=${encodeURIComponent(next)}`);
    lines.push(...more.requests);
    next = lines.length < 200 ? more.next : undefined;
  }
  if (signal.aborted) return;
  const alarms = [...(box.alarms ?? []), ...(box.unseen ?? [])];
  fill(
    main,
    h("h1", {}, "Inbox"),
    alarms.length ? h("section", { class: "notice bad", "aria-label": "Alarms" }, alarms.map((text) => h("p", {}, text))) : null,
    lines.length
      ? h("ul", { class: "cards" }, lines.map(line))
      : h("p", { class: "empty" }, "Nothing waits for you."),
  );
}

function line(request) {
  const more = request.items > 1 ? ` and ${request.items - 1} more` : "";
  const [approvals, quorum] = request.approvals;
  return h(
    "li",
    {},
    h(
      "a",
      { class: "card", href: `/r/${request.id}` },
      h("strong", {}, name(request.title), more),
      h("span", {}, "asked by ", name(request.caller), ", ", time(request.opened)),
      h("span", {}, `${approvals} of ${quorum} approvals`, request.answered ? ", one of them yours" : "", " · ends ", time(request.expires)),
      request.confirm?.length ? h("span", { class: "tag" }, "the registry asks for its own second factor") : null,
    ),
  );
}
