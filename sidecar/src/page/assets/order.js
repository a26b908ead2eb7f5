// The order of a table's rows: parts of its headers are buttons, and the choice is in the address.

import { choice, choose } from "./address.js";
import { el } from "./elements.js";

const compare = (a, b) => {
  // What has no value comes last.
  const [missing, other] = [a == null || a === "", b == null || b === ""];
  if (missing || other) return Number(missing) - Number(other);
  return typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
};

// `keys` are functions of a row by the name in `data-sort`; `name` is that of the choice. Returns a
// function that sorts rows, which are in their usual order.
export const order = (element, name, keys) => {
  const current = () => {
    const text = choice(name);
    const key = text.replace(/^-/, "");
    return { key: keys[key] ? key : "", down: text.startsWith("-") };
  };
  // Up, down, and back to the usual order.
  const press = (pressed) => {
    const { key, down } = current();
    choose({ [name]: key !== pressed ? pressed : down ? "" : `-${pressed}` });
  };
  const buttons = [...element.tHead.querySelectorAll("[data-sort]")].map((place) => {
    const button = el("button", { type: "button", class: "sort", text: place.textContent, onclick: () => press(place.dataset.sort) });
    place.replaceChildren(button);
    return { button, head: place.closest("th"), key: place.dataset.sort };
  });
  const mark = () => {
    const { key, down } = current();
    for (const { head } of buttons) head.removeAttribute("aria-sort");
    for (const { button, head, key: own } of buttons) {
      const active = own === key;
      button.classList.toggle("up", active && !down);
      button.classList.toggle("down", active && down);
      if (active) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    }
  };
  return (rows) => {
    mark();
    const { key, down } = current();
    if (!key) return rows;
    const of = keys[key];
    const sign = down ? -1 : 1;
    // Rows that are equal keep their usual order.
    return rows.map((row) => [of(row), row])
      .sort(([a], [b]) => (a == null || a === "" || b == null || b === "" ? compare(a, b) : sign * compare(a, b)))
      .map(([, row]) => row);
  };
};
