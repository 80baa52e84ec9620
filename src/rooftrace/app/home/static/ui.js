// Small parts that the pages share.

export const number = (value, digits = 0) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const percent = (share, digits = 1) => `${number(100 * share, digits)} %`;
export const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

// Build an element: `h("a.button", { href }, "Map", child)`.
export function h(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const made = document.createElement(tag);
  made.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child || child === 0));
  return made;
}

const TOAST_MS = 8000;
let last = null;

// Say that something was done, and offer to undo it. `done` is called when the time for that is over, at
// the latest when the page is left.
export function undoable(text, { undo, done }) {
  last?.end();
  const note = h("div.toast", { role: "status" }, h("span", {}, text));
  let over = false;
  const end = (work) => {
    if (over) return;
    over = true;
    clearTimeout(timer);
    removeEventListener("pagehide", leave);
    note.remove();
    if (last === entry) last = null;
    work();
  };
  const leave = () => end(done), entry = { end: leave };
  note.append(h("button", { type: "button", onclick: () => end(undo) }, "Undo"));
  const timer = setTimeout(leave, TOAST_MS);
  addEventListener("pagehide", leave);
  last = entry;
  document.body.append(note);
}
