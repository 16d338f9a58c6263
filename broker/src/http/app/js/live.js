// Pages that stay right while they are open: nothing is asked for while nobody looks, and one question at a time.

import { Offline, signed } from "./api.js";

/** Seconds between two looks at a list. */
const AGAIN = 15;
/** Seconds that one question about a request may wait for its answer. */
const WAIT = 25;

/** Waits, until the time is over or somebody comes back to the page; ends with the page. */
function pause(seconds, signal) {
  return new Promise((resolve) => {
    const stop = new AbortController();
    const over = () => {
      clearTimeout(timer);
      stop.abort();
      resolve();
    };
    const timer = setTimeout(() => document.hidden || over(), seconds * 1000);
    document.addEventListener("visibilitychange", () => document.hidden || over(), { signal: stop.signal });
    addEventListener("online", over, { signal: stop.signal });
    signal.addEventListener("abort", over, { signal: stop.signal });
  });
}

/** Does something again and again while the page is looked at; `work` may say after how many seconds, or that it is done
 * (0). Errors are the page's to show. */
export async function repeat(signal, work, first = AGAIN) {
  let seconds = first;
  while (seconds) {
    await pause(seconds, signal);
    if (signal.aborted) return;
    seconds = (await work()) ?? AGAIN;
  }
}

/** Follows a request: `changed(status)` after each change, until it is final or the page is left. */
export async function follow(id, status, signal, changed) {
  while (!signal.aborted) {
    try {
      const path = `/v1/requests/${id}?wait=${WAIT}&since=${status.revision}`;
      const next = await signed("GET", path, undefined, signal);
      if (signal.aborted) return;
      const before = status;
      status = next;
      if (next.revision !== before.revision) await changed(next, before);
    } catch (why) {
      if (signal.aborted) return;
      // Away, or asked too often: later. Whatever else is wrong, the next answer will say.
      await pause(why instanceof Offline ? AGAIN / 3 : AGAIN, signal);
    }
    if (document.hidden) await pause(AGAIN, signal);
  }
}
