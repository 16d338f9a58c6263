// The states of a request, as people read them.

import { h } from "./dom.js";

/** Tone, and what it means for whoever looks at it. */
const STATES = {
  pending: ["warn", "It waits for answers."],
  approved: ["good", "Approved. The job collects it next, and publishes."],
  releasing: ["good", "The job is publishing."],
  settling: ["warn", "The registry gave no clear answer. The broker reads back what is there; nothing is sent twice."],
  confirming: ["warn", "Approved. The registry wants its own second factor before it publishes."],
  published: ["good", "Published: the registry shows the approved bytes."],
  conflict: ["bad", "Find out who published, and freeze the package."],
  denied: ["bad", "Nothing of it can be published. The job may ask anew."],
  expired: ["", "Nothing more of it can be published. The job may ask anew."],
  cancelled: ["", "The job took it back. Nothing was published."],
};

/** Whether nothing can change any more. */
export function final(state) {
  return ["published", "conflict", "denied", "expired", "cancelled"].includes(state);
}

export function chip(state) {
  const [tone] = STATES[state] ?? [""];
  return h("span", { class: "chip", "data-tone": tone || null }, state);
}

export function meaning(state) {
  return STATES[state]?.[1] ?? "";
}
