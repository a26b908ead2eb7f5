// Tables that reuse their rows and only change their content, so that nothing moves under the
// reader's eyes or pointer. Of a long one, only the rows near the window are drawn.

import { count, el, setText } from "./elements.js";

const LIMIT = 12;
// Longer tables are drawn in part.
const WHOLE_MAX = 150;
// Rows that are drawn above and below the window.
const MARGIN = 15;

// A column is `{ class, build(td) -> show(row) }`, or `{ class, text(row) }`. `columns.limit` is how
// many rows are shown before the reader asks for the others. `empty` returns what is shown without
// any.
export const table = (element, columns, empty) => {
  const body = element.tBodies[0];
  const nothing = el("tr", { class: "empty" }, el("td", { colspan: columns.length, }));
  const space = () => el("tr", { class: "space", "aria-hidden": "true" }, el("td", { colspan: columns.length }));
  const [above, below] = [space(), space()];
  const limit = columns.limit ?? LIMIT;
  // Drawn rows by their index, and those that are free.
  const drawn = new Map();
  const free = [];
  let whole = false;
  let last = [];
  let height = 0;

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

  // The first row to draw, and the one after the last.
  const range = (length) => {
    if (length <= WHOLE_MAX) return [0, length];
    height ||= [...drawn.values()][0]?.tr.offsetHeight || 0;
    if (!height) return [0, 2 * MARGIN];
    const top = body.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / height) - MARGIN);
    const after = Math.ceil((innerHeight - top) / height) + MARGIN;
    return [Math.min(first, length), Math.min(Math.max(after, 0), length)];
  };

  const draw = (rows) => {
    const [from, to] = range(rows.length);
    for (const [index, { tr }] of drawn) {
      if (index >= from && index < to) continue;
      tr.remove();
      free.push(drawn.get(index));
      drawn.delete(index);
    }
    // From the end, so that each row has the next one to stand before.
    let next = below.parentNode ? below : null;
    for (let index = to - 1; index >= from; index -= 1) {
      const row = drawn.get(index) ?? free.pop() ?? slot();
      drawn.set(index, row);
      if (row.tr.parentNode !== body || row.tr.nextSibling !== next) body.insertBefore(row.tr, next);
      for (const show of row.shows) show(rows[index]);
      next = row.tr;
    }
    return [from, to];
  };

  const setHeight = (tr, pixels) => {
    const wanted = `${pixels}px`;
    if (tr.firstChild.style.height !== wanted) tr.firstChild.style.height = wanted;
  };

  const shown = () => (whole ? last : last.slice(0, limit));

  const redraw = () => {
    const rows = shown();
    const partly = rows.length > WHOLE_MAX;
    if (partly !== Boolean(above.parentNode)) {
      if (partly) {
        body.prepend(above);
        body.append(below);
      } else {
        above.remove();
        below.remove();
        for (const { tr } of drawn.values()) tr.removeAttribute("aria-rowindex");
        element.removeAttribute("aria-rowcount");
      }
    }
    const [from, to] = draw(rows);
    if (partly) {
      setHeight(above, from * height);
      setHeight(below, (rows.length - to) * height);
      element.setAttribute("aria-rowcount", rows.length + 1);
      for (const [index, { tr }] of drawn) tr.setAttribute("aria-rowindex", index + 2);
    }
    if (rows.length) {
      nothing.remove();
    } else {
      setText(nothing.firstChild, empty());
      if (!nothing.parentNode) body.append(nothing);
    }
  };

  let asked = false;
  const scrolled = () => {
    if (asked || !above.parentNode) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      redraw();
    });
  };
  addEventListener("scroll", scrolled, { passive: true });
  addEventListener("resize", () => {
    height = 0;
    scrolled();
  });

  const show = (rows) => {
    last = rows;
    redraw();
    const more = rows.length - limit;
    toggle.hidden = more <= 0;
    setText(toggle, whole ? "Show fewer" : `Show ${count(more, "more row")}`);
    toggle.setAttribute("aria-expanded", whole);
  };
  return show;
};
