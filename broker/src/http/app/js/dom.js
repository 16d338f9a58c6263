// The one way onto the screen: elements and texts. Nothing here or elsewhere parses HTML, so nothing that a job or a
// broker says can become a part of the page.

/** An element. Attributes with a function are listeners, `true` is a bare attribute, null and false are none. */
export function h(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
}

/** Replaces what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

/** An error, with what to do next; announced by screen readers. */
export function failure(why) {
  return h("div", { class: "notice bad", role: "alert" }, h("p", {}, why.message), why.detail ? h("p", {}, why.detail) : null);
}

/** A button that is busy while its work runs, and shows the error if it fails. */
export function action(label, attributes, work) {
  const button = h("button", { type: "button", ...attributes }, label);
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-busy") === "true") return;
    button.setAttribute("aria-busy", "true");
    const place = button.closest("[data-errors]") ?? button.parentElement;
    place.querySelectorAll(":scope > .notice.bad").forEach((old) => old.remove());
    try {
      await work();
    } catch (why) {
      place.append(failure(why));
      place.lastElementChild.scrollIntoView({ block: "nearest" });
    } finally {
      button.removeAttribute("aria-busy");
    }
  });
  return button;
}
