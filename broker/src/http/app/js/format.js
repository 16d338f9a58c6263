// Times, digests and names as people read them.

import { h } from "./dom.js";
import { now } from "./device.js";

const UNITS = [
  [86400, "day"],
  [3600, "hour"],
  [60, "minute"],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "long" });

function distance(seconds) {
  for (const [size, unit] of UNITS) {
    if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
  }
  return Math.abs(seconds) < 10 ? "now" : relative.format(Math.trunc(seconds), "second");
}

/** "12 minutes ago", with the exact time beside it. */
export function time(at) {
  const exact = new Date(at * 1000);
  const text = exact.toISOString().replace("T", " ").replace(/\.\d+Z/, " UTC");
  return h("time", { datetime: exact.toISOString() }, distance(at - now()), h("small", {}, ` (${text})`));
}

/** Hex in groups of 8; people compare groups. */
export function digest(text) {
  const [algorithm, value] = text.includes(":") ? text.split(":") : ["", text];
  const groups = value.match(/.{1,8}/g) ?? [];
  return h(
    "span",
    { class: "digest" },
    algorithm ? h("small", {}, algorithm + " ") : null,
    groups.map((group) => h("span", {}, group)),
  );
}

export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB"];
  let value = bytes;
  let at = -1;
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000;
    at++;
  }
  return `${value.toFixed(value < 10 ? 1 : 0)} ${units[at]}`;
}

/** A long name that may break behind its separators, and nowhere else first. */
export function name(text) {
  const pieces = text.split(/(?<=[/@:._-])/);
  return h("span", { class: "name" }, pieces.map((piece, at) => (at ? [h("wbr"), piece] : piece)));
}
