// Cells that several tables have.

import { el, setClass, setText } from "./elements.js";

export const tag = (cell, of) => {
  const mark = el("span");
  cell.append(mark);
  return (row) => {
    const [kind, text] = of(row);
    setClass(mark, `tag ${kind}`);
    setText(mark, text);
  };
};

// A row keeps its button; the click handler opens what the row shows then.
export const opener = (cell, of, open) => {
  let current;
  const [main, more] = [el("span", { class: "main" }), el("span", { class: "muted repository" })];
  const button = el("button", { type: "button", class: "link", onclick: () => open(current) }, main, " ", more);
  cell.append(button);
  return (row) => {
    current = row;
    const [text, aside = ""] = of(row);
    setText(main, text);
    setText(more, aside);
  };
};
