// Numbers, times and elements.

const WHOLE = new Intl.NumberFormat("en");
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const SVG = "http://www.w3.org/2000/svg";

const $ = (id) => document.getElementById(id);
const count = (n) => (n < 1e6 ? WHOLE.format(Math.round(n)) : COMPACT.format(n));
const rate = (n) => (n > 0 && n < 9.95 ? n.toFixed(1) : count(n));
const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
const words = (label) => label.replaceAll("_", " ");
const clock = (date) => date.toLocaleTimeString("en-GB");
const ago = (seconds) => new Date(Date.now() - 1000 * seconds);

function idName(id) {
  return id > 0x20 && id < 0x7f ? String.fromCharCode(id) : hexName(id);
}

function hexName(id) {
  return `0x${id.toString(16).padStart(2, "0")}`;
}

function duration(seconds) {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function drawn(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== "") made.textContent = text;
  return made;
}

// Only what changes is touched, so that a selection, a tooltip or a screen reader's place survives the second.
function say(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

// Makes the children of `parent` those of `items`, in order, and keeps the ones that are there already. One that is moved
// loses the focus, so those that go do so first, and only what is out of place is put in.
function keep(parent, items, keyOf, make, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const key = String(keyOf(item));
    const child = known.get(key) ?? make(item);
    known.delete(key);
    child.dataset.key = key;
    update(child, item);
    return child;
  });
  for (const child of known.values()) child.remove();
  let next = parent.firstElementChild;
  for (const child of wanted) {
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
}

function bar() {
  const svg = drawn("svg", { "aria-hidden": "true", viewBox: "0 0 100 10", preserveAspectRatio: "none" });
  svg.append(
    drawn("rect", { class: "bar-back", width: 100, height: 10 }),
    drawn("rect", { class: "bar", width: 0, height: 10 }),
  );
  return svg;
}

function fill(svg, share) {
  svg.lastChild.setAttribute("width", (100 * Math.min(1, share)).toFixed(1));
}
