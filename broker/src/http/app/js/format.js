// Times, digests and names as people read them.

import { h } from "./dom.js";
import { now } from "./device.js";

const UNITS = [
  [86400, "day"],
  [3600, "hour"],
  [60, "minute"],
];
/** Seconds between two looks at the times on a page. */
const TICK = 10;
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "long" });
const day = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", timeZone: "UTC" };
const thisYear = new Intl.DateTimeFormat("en-GB", day);
const otherYear = new Intl.DateTimeFormat("en-GB", { ...day, year: "numeric" });

function distance(seconds) {
  for (const [size, unit] of UNITS) {
    // "90 minutes", not "1 hour".
    if (Math.abs(seconds) >= (unit === "minute" ? size : 2 * size)) return relative.format(Math.trunc(seconds / size), unit);
  }
  return Math.abs(seconds) < 10 ? "now" : relative.format(Math.trunc(seconds), "second");
}

/** "12 minutes ago", with the exact time beside it. It stays right while the page is open. */
export function time(at) {
  const exact = new Date(at * 1000);
  const style = exact.getUTCFullYear() === new Date().getUTCFullYear() ? thisYear : otherYear;
  const iso = exact.toISOString();
  const words = h("span", {}, distance(at - now()));
  return h("time", { datetime: iso, title: iso }, words, " ", h("small", {}, `${style.format(exact)} UTC`));
}

setInterval(() => {
  if (document.hidden) return;
  for (const element of document.querySelectorAll("main time")) {
    const text = distance(Math.floor(Date.parse(element.dateTime) / 1000) - now());
    if (element.firstChild.textContent !== text) element.firstChild.textContent = text;
  }
}, TICK * 1000);

/** Hex in groups of 8; people compare groups. */
export function digest(text) {
  const [algorithm, value] = text.includes(":") ? text.split(":") : ["", text];
  const groups = value.match(/.{1,8}/g) ?? [];
  return h(
    "span",
    { class: "digest" },
    algorithm ? h("small", {}, algorithm + " ") : null,
    // The spaces are for those who copy or hear it.
    groups.map((group) => [h("span", {}, group), " "]),
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

/** "1 device", "2 devices". */
export function count(n, one) {
  return `${n} ${one}${n === 1 ? "" : "s"}`;
}

/** "alice, bob and carol" */
export function list(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}
