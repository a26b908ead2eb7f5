// The address: what the reader chose is in it, so that it can be kept and shared.

const USUAL = {
  view: "overview",
  jobs: "all",
  runners: "live",
  filter: "",
  repository: "",
  pool: "",
  label: "",
  sort: "",
  "runners-sort": "",
};

const chosen = { ...USUAL };
const listeners = [];

const read = () => {
  const address = new URLSearchParams(location.search);
  for (const [name, usual] of Object.entries(USUAL)) chosen[name] = address.get(name) ?? usual;
};

// The address with these choices in place of the current ones.
export const address = (choices, hash = "") => {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...chosen, ...choices })) if (value !== USUAL[name]) query.set(name, value);
  const text = query.toString();
  return `${location.pathname}${text && `?${text}`}${hash}`;
};

export const choice = (name) => chosen[name];

// `step`: the browser's "back" returns from it.
export const choose = (choices, step = false) => {
  const to = address(choices, step ? "" : location.hash);
  Object.assign(chosen, choices);
  if (step) history.pushState(null, "", to);
  else history.replaceState(null, "", to);
  for (const listener of listeners) listener();
};

export const onChoice = (listener) => listeners.push(listener);

read();
window.addEventListener("popstate", () => {
  read();
  for (const listener of listeners) listener();
});
