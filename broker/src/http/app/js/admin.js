// What an admin looks after. It only shows: whatever changes something is done in a terminal, with a device that the
// admin has to unlock.

import { Problem, signed } from "./api.js";
import { fill, h, nothing, svg } from "./dom.js";
import { count, list, name, time } from "./format.js";

/** What a registry said of a token. */
const PROOF = { proved: "the registry took it", unproved: "not proved without publishing", refused: "refused" };
/** Shares of a token's allowed age, in percent, from which on it is warned about. */
const OLD = 75;
const VERY_OLD = 90;

export async function admin(main, { signal }) {
  let shown;
  try {
    shown = await Promise.all(
      ["/v1/admin/tokens", "/v1/admin/people", "/v1/admin/watch", "/v1/inbox", "/v1/admin/tokens/left"].map((path) =>
        signed("GET", path, undefined, signal),
      ),
    );
  } catch (why) {
    if (!(why instanceof Problem) || why.code !== "not-allowed") throw why;
    const detail = "Tokens and their age, people, and what registries serve are shown to admins.";
    return fill(main, h("h1", { tabindex: -1 }, "Admin"), nothing("admin", "You are not an admin.", detail));
  }
  if (signal.aborted) return;
  const [tokens, people, watch, box, left] = shown;
  const alarms = [...(box.alarms ?? []), ...(box.unseen ?? [])];
  fill(
    main,
    h("h1", { tabindex: -1 }, "Admin"),
    alarms.length
      ? h("section", { class: "notice bad", "aria-label": "Alarms" }, h("h2", {}, "Alarms"), alarms.map((text) => h("p", {}, text)))
      : h("p", { class: "notice good" }, "No alarms."),
    h("h2", {}, "Registry tokens"),
    left.length
      ? h("p", { class: "notice warn" }, `${count(left.length, "old token")} may still be good at the registry: `, h("code", {}, "countersign admin token left"))
      : null,
    tokens.length
      ? h("ul", { class: "cards" }, tokens.map(token))
      : h("p", { class: "dim" }, "None. In a terminal: ", h("code", {}, "countersign admin token add")),
    h("h2", {}, "People"),
    h("ul", { class: "cards" }, people.map(person)),
    h("h2", {}, "Registries"),
    watched(watch),
    h("p", {}, h("small", {}, "Everything here is changed in a terminal: ", h("code", {}, "countersign admin --help"))),
  );
}

function token(of) {
  const tone = of.age_percent >= VERY_OLD ? "bad" : of.age_percent >= OLD ? "warn" : "good";
  const bar = svg("rect", { width: `${Math.min(of.age_percent, 100)}%`, height: "100%" });
  return h(
    "li",
    { class: "card" },
    h("strong", {}, name(`${of.registry}:${of.scope}`)),
    h("span", {}, `version ${of.version}, fingerprint `, h("code", {}, of.fingerprint)),
    h("span", {}, "stored ", time(of.stored)),
    h("span", {}, of.used ? ["used ", time(of.used)] : "never used"),
    of.expires ? h("span", {}, "the registry ends it ", time(of.expires)) : null,
    h("p", {}, `${of.age_percent} % of its allowed age`),
    svg("svg", { class: "meter", "data-tone": tone, "aria-hidden": "true" }, bar),
    of.proof ? h("span", {}, `${PROOF[of.proof.outcome] ?? "not known"} `, time(of.proof.at)) : null,
    of.proof?.outcome === "refused" && !of.overlap_until ? h("p", { class: "notice bad" }, "The registry refuses it. Rotate it now.") : null,
    of.held ? h("span", {}, "old; kept until the new one was accepted once") : null,
    of.fallback
      ? h("p", { class: "notice warn" }, `The registry has not accepted it yet; version ${of.fallback} is kept: `, h("code", {}, `countersign admin token back ${of.registry} '${of.scope}'`))
      : null,
    !of.emptied && !of.overlap_until ? h("p", { class: "notice warn" }, "Nobody said that it is nowhere else: ", h("code", {}, `countersign admin token emptied ${of.fingerprint}`)) : null,
    of.exposed ? h("p", { class: "notice bad" }, `A job has seen it. ${of.overlap_until ? "Revoke it at the registry." : "Rotate it now."}`) : null,
    !of.exposed && of.age_percent >= OLD ? h("p", { class: `notice ${tone}` }, "Rotate it: ", h("code", {}, `countersign admin token rotate ${of.registry} ${of.scope}`)) : null,
  );
}

function person(of) {
  const groups = of.groups.length ? list(of.groups) : "in no group";
  return h(
    "li",
    { class: "card" },
    h("strong", {}, of.person, of.admin ? h("small", {}, " · admin") : null),
    h("span", {}, groups, " · ", of.devices ? count(of.devices, "device") : "no device yet"),
    of.actors.length ? h("span", {}, "CI accounts ", list(of.actors)) : null,
  );
}

function watched(watch) {
  if (!watch.every) return h("p", { class: "dim" }, "The watch is off: the configuration has no [watch].");
  if (!watch.packages.length) return h("p", { class: "dim" }, "No package is watched yet.");
  return h("ul", { class: "cards" }, watch.packages.map((of) => {
    // What a list does not hold is left out of the reply.
    const others = of.others ?? [];
    const wrong = others.length ? of.problem : (of.alarm ?? of.problem);
    return h(
      "li",
      { class: "card" },
      h("strong", {}, name(of.package)),
      h("span", {}, of.latest ? ["latest is ", name(of.latest), " · "] : null, `${of.published} published here, ${of.before} before`),
      h("span", {}, of.looked ? ["looked at ", time(of.looked)] : "not looked at yet"),
      others.length ? h("p", { class: "notice bad" }, `Not published here: ${list(others)}`) : null,
      wrong ? h("p", { class: "notice bad" }, wrong) : null,
      of.frozen ? h("p", {}, h("span", { class: "chip", "data-tone": "bad" }, "frozen")) : null,
    );
  }));
}
