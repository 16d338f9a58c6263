// The broker's log, as this browser saw it; and the way on after a restore.

import { action, failure, fill, h } from "./dom.js";
import { time } from "./format.js";
import { accept, follow, look } from "./witness.js";

export async function log(main, { signal, again }) {
  const found = await look(signal);
  if (signal.aborted) return;
  const { kept, point, fork } = found;
  const lead = "This browser keeps what it saw of the broker's log, and approves nothing while the broker does not prove that its log still begins with that.";
  fill(main, h("h1", { tabindex: -1 }, "The log"), h("p", { class: "lead" }, lead), fork ? forked(found, again) : fine(kept, point));
  if (!fork) await follow(signal);
}

/** What any page says about a log that does not continue what was seen. */
export function doubtful(why) {
  return h("section", { "aria-label": "The log" }, failure(why), h("p", { class: "lines" }, h("a", { href: "/log" }, "What this browser saw of the log")));
}

function fine(kept, point) {
  return [
    h("p", { class: "notice good" }, kept ? "It continues what this browser saw." : "It was seen for the first time."),
    h("dl", {}, h("dt", {}, "Entries"), h("dd", {}, `${point.size}`), kept ? [h("dt", {}, "Seen before"), h("dd", {}, time(kept.time))] : null),
    note("Checkpoint", point.note),
  ];
}

function forked(found, again) {
  const { kept, point, fork } = found;
  const gone =
    point && point.size < kept.size
      ? `Entries ${point.size} to ${kept.size - 1} at least, which this browser had a checkpoint over, are lost.`
      : `Some of the first ${kept?.size ?? 0} entries are lost; others stand in their place.`;
  const sure = h("input", { id: "sure", autocomplete: "off", autocapitalize: "none" });
  const go = async () => {
    if (sure.value.trim() !== "accept") throw new Error("Ask the admins first, on another way than this broker.");
    await accept(found);
    await again();
  };
  return [
    failure(fork),
    point
      ? h(
          "details",
          { class: "card" },
          h("summary", {}, "The admins restored a backup"),
          h("p", {}, gone, " What was denied, frozen, removed or revoked in them is forgotten by the broker: look at it, and do it again."),
          h("div", { "data-errors": true }, h("label", { for: "sure" }, "Type accept if an admin told you so, on another way"), sure, action("Go on with this log", { class: "bad" }, go)),
          note("What this browser saw", kept?.note ?? ""),
          note("What the broker shows", point.note),
        )
      : h("p", {}, "Another key is another broker, or one that was set up anew: then enrol this browser with a new invite."),
  ];
}

function note(title, text) {
  return h("details", {}, h("summary", {}, title), h("pre", {}, text));
}
