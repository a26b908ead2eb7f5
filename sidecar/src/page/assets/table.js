// Tables that reuse their rows and only change their content, so that nothing moves under the
// reader's eyes or pointer.

import { count, el, setText } from "./elements.js";

const LIMIT = 12;

// A column is `{ class, build(td) -> show(row) }`, or `{ class, text(row) }`. `columns.limit` is how
// many rows are shown before the reader asks for the others.
export const table = (element, columns, empty) => {
  const body = element.tBodies[0];
  const slots = [];
  const nothing = el("tr", { class: "empty" }, el("td", { colspan: columns.length, text: empty }));
  const limit = columns.limit ?? LIMIT;
  let whole = false;
  let last = [];

  const toggled = () => {
    whole = !whole;
    show(last);
  };
  const toggle = el("button", { type: "button", class: "rest", onclick: toggled });
  toggle.hidden = true;
  element.after(toggle);

  const slot = () => {
    const tr = el("tr");
    const shows = columns.map((column, index) => {
      const cell = index === (columns.heading ?? 0)
        ? el("th", { scope: "row", class: column.class })
        : el("td", { class: column.class });
      tr.append(cell);
      return column.build?.(cell) ?? ((row) => setText(cell, column.text(row)));
    });
    return { tr, shows };
  };

  // Truncated text is shown as a tooltip. It is measured on hover only: for each row, it would
  // cost a layout each.
  body.addEventListener("pointerover", ({ target }) => {
    const box = target.closest("button.link, td, th");
    if (box) box.title = box.scrollWidth > box.clientWidth ? box.textContent : "";
  });

  const show = (rows) => {
    last = rows;
    const more = rows.length - limit;
    const some = whole || more <= 0 ? rows : rows.slice(0, limit);
    while (slots.length < some.length) slots.push(slot());
    some.forEach((row, index) => slots[index].shows.forEach((show) => show(row)));
    const shown = slots.slice(0, some.length).map(({ tr }) => tr);
    if (!shown.length) shown.push(nothing);
    for (let index = 0; index < shown.length; index += 1) {
      if (body.rows[index] !== shown[index]) body.insertBefore(shown[index], body.rows[index] ?? null);
    }
    while (body.rows.length > shown.length) body.lastElementChild.remove();
    toggle.hidden = more <= 0;
    setText(toggle, whole ? "Show fewer" : `Show ${count(more, "more row")}`);
    toggle.setAttribute("aria-expanded", whole);
  };
  return show;
};
