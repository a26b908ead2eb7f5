// The views: parts of the page that have an address each, so that none crowds another.

import { address, choice, choose, onChoice } from "./address.js";
import { byId } from "./elements.js";

const links = [...document.querySelectorAll("#views a")];
const NAMES = links.map((link) => link.dataset.view);

const show = () => {
  const view = NAMES.includes(choice("view")) ? choice("view") : "overview";
  document.body.dataset.view = view;
  for (const link of links) {
    link.setAttribute("href", address({ view: link.dataset.view }));
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
};

byId("views").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  // Another tab or window is the browser's.
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  choose({ view: link.dataset.view }, true);
});

// The wall has no controls.
addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && choice("view") === "wall") choose({ view: "overview" }, true);
});

onChoice(show);
show();

// Views without content are not offered, unless one is shown.
export const views = (dashboard) => {
  const empty = {
    nodes: Object.keys(dashboard.nodes).length === 0,
    egress: dashboard.egress.length === 0,
  };
  for (const link of links) link.hidden = Boolean(empty[link.dataset.view]) && choice("view") !== link.dataset.view;
};
