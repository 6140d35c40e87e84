// Elements, numbers and colours. Whatever the data holds becomes text here, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
// Scenarios may be called "constructor": of these objects, what is not in the data is not there at all.
function bare(held) {
  if (!held || typeof held !== "object") return;
  if (!Array.isArray(held)) Object.setPrototypeOf(held, null);
  for (const one of Object.values(held)) bare(one);
}
[data.comparison, data.curves, data.arms].forEach(bare);
const SPACE = document.querySelector("svg").namespaceURI;
const root = document.documentElement;

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [kind, act] of Object.entries(value)) node.addEventListener(kind, act);
    else if (name === "look") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

const h = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => filled(document.createElementNS(SPACE, tag), attributes, children);
const at = (id) => document.getElementById(id);

// A name of a log stands on its own: its direction marks do not turn what is around it.
const name = (text) => h("bdi", { dir: "auto" }, text);
const isolated = (text) => `\u2068${text}\u2069`;
const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

const whole = (value) => value.toLocaleString("en-US");
const fixed = (value, places = 4) => (value === null || value === undefined ? "–" : value.toFixed(places));
const signed = (value, places = 4) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(places)}`;
const percent = (value, places = 1) => `${(100 * value).toFixed(value === 0 || value === 1 ? 0 : places)} %`;
const counted = (count, one, many = `${one}s`) => `${whole(count)} ${count === 1 ? one : many}`;
function figure(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return whole(value);
  return Math.abs(value) >= 1000 ? whole(Math.round(value)) : String(Number(value.toPrecision(4)));
}

const color = (token) => getComputedStyle(root).getPropertyValue(token).trim();
const PALETTE = 8;
const paint = (place) => (place >= 0 && place < PALETTE ? `var(--c${place})` : "var(--other)");

// Draws a chart at the width it has, and again when that changes.
function responsive(draw, least = 200) {
  const box = h("div", {});
  let last = 0;
  new ResizeObserver((entries) => {
    const width = Math.max(least, Math.floor(entries[0].contentRect.width));
    if (width !== last) {
      last = width;
      box.replaceChildren(draw(width));
    }
  }).observe(box);
  return box;
}

const smallest = (values) => values.reduce((one, other) => Math.min(one, other), Infinity);
const largest = (values) => values.reduce((one, other) => Math.max(one, other), -Infinity);

function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((one) => one >= rough * 0.999);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place++) {
    found.push(Math.abs(place * step) < step * 1e-9 ? 0 : place * step);
  }
  return { at: found, places: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

const scrolled = (label, table) => h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);

function toggled(choices, chosen, act, label) {
  const buttons = choices.map(([key, text]) =>
    h("button", { type: "button", "aria-pressed": String(key === chosen), on: { click: () => pick(key) } }, text));
  function pick(key) {
    buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(choices[place][0] === key)));
    act(key);
  }
  return h("div", { class: "switch", role: "group", "aria-label": label }, buttons);
}

const note = (text) => h("p", { class: "note" }, text);
