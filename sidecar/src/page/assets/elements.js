// Helpers for elements and text. Text from GitHub is always inserted as text, never as markup.

export const byId = (id) => document.getElementById(id);

export const el = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") element.textContent = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
};

// Leaves unchanged text alone, which keeps the selection and saves a layout.
export const setText = (node, text) => {
  const wanted = String(text ?? "");
  if (node.textContent !== wanted) node.textContent = wanted;
};

export const setClass = (node, name) => {
  if (node.className !== name) node.className = name;
};

// Milliseconds by which the sidecar's clock is ahead of this machine's.
let ahead = 0;
export const setNow = (sidecarMs) => { ahead = sidecarMs - Date.now(); };
export const now = () => Date.now() + ahead;

// With the date, unless that is today.
export const time = (ms) => {
  const at = new Date(ms);
  const text = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  if (at.toDateString() === new Date().toDateString()) return text;
  return `${at.toLocaleDateString([], { year: "numeric", month: "short", day: "numeric" })}, ${text}`;
};

export const duration = (ms) => {
  if (ms == null) return "";
  if (ms < 0) ms = 0;
  if (ms < 950) return `${Math.round(ms / 10) * 10} ms`;
  if (ms < 9950) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000)} days`;
};

// The age of something that is in progress, in whole seconds.
export const since = (ms) => {
  if (ms == null) return "";
  const age = Math.max(0, now() - ms);
  return age < 120_000 ? `${Math.floor(age / 1000)} s` : duration(age);
};

export const until = (ms) => duration(Math.max(0, Math.ceil((ms - now()) / 1000)) * 1000);

export const count = (number, one, more = `${one}s`) =>
  `${number.toLocaleString("en")} ${number === 1 ? one : more}`;

// `parts` are pairs of a colour's name and a share of `whole`.
export const setBar = (bar, parts, whole) => {
  let at = 0;
  const stops = [];
  for (const [colour, share] of parts) {
    if (!(share > 0)) continue;
    const end = Math.min(100, at + (100 * share) / whole);
    stops.push(`var(--${colour}) ${at.toFixed(1)}% ${end.toFixed(1)}%`);
    at = end;
  }
  stops.push(`transparent ${at.toFixed(1)}%`);
  const image = `linear-gradient(to right, ${stops.join(", ")})`;
  if (bar.dataset.image !== image) {
    bar.dataset.image = image;
    bar.style.backgroundImage = image;
  }
};

export const isWebAddress = (address) => /^https?:\/\//i.test(address ?? "");

// A link, unless the address is not an HTTP URL.
export const link = (address, text) =>
  isWebAddress(address)
    ? el("a", { href: address, rel: "noreferrer noopener", target: "_blank", text })
    : null;
