// The one way onto the screen: elements and texts. Nothing here or elsewhere parses HTML, so nothing that a job or a
// broker says can become a part of the page.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Attributes with a function are listeners, `true` is a bare attribute, null and false are none. */
export function h(name, attributes, ...children) {
  return made(document.createElement(name), attributes, children);
}

/** The same, of a drawing. */
export function svg(name, attributes, ...children) {
  return made(document.createElementNS(SVG, name), attributes, children);
}

function made(element, attributes, children) {
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

/** One of the document's drawings; it says nothing that the words beside it do not say. */
export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#i-${name}` }));
}

/** Tells screen readers what changed on a page that is open. */
export function say(text) {
  const place = document.querySelector("#said");
  if (place.textContent !== text) place.textContent = text;
}

/** A link to another page of the app, as large as a card. */
export function goesTo(href, picture, title, detail) {
  const words = h("div", {}, h("strong", {}, title), detail ? [h("br"), h("small", {}, detail)] : null);
  return h("a", { class: "card goes", href }, icon(picture), words, icon("next"));
}

/** Nothing to show, and that is well. */
export function nothing(picture, title, detail) {
  return h("div", { class: "empty" }, icon(picture), h("p", {}, title), detail ? h("p", {}, h("small", {}, detail)) : null);
}

/** An error, with what to do next; announced by screen readers. */
export function failure(why) {
  const detail = why.detail ? h("p", {}, why.detail) : null;
  return h("div", { class: "notice bad", role: "alert" }, h("p", {}, why.message), detail);
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
