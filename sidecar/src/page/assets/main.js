// The page: shows each new dashboard in all panels.

import { attention } from "./attention.js";
import { chart } from "./chart.js";
import { details } from "./details.js";
import { egress } from "./egress.js";
import { byId, now } from "./elements.js";
import { lists, onChoice } from "./lists.js";
import { follow } from "./live.js";
import { nodes } from "./nodes.js";
import "./operate.js";
import { overview } from "./overview.js";
import "./report.js";
import "./search.js";
import { sidecars } from "./sidecars.js";

const REFRESH_AGES_EVERY_MS = 1000;

let dashboard = null;
let shown = 0;

const show = () => {
  if (!dashboard) return;
  shown = performance.now();
  attention(dashboard, now());
  overview(dashboard, now());
  lists(dashboard, now());
  nodes(dashboard);
  sidecars(dashboard);
  egress(dashboard);
  // Panels appear with their content, so that none moves.
  document.body.classList.remove("loading");
  chart(dashboard, now());
};

follow((update) => {
  dashboard = update;
  show();
  details(dashboard);
});
// Ages change even if nothing else does.
setInterval(() => {
  if (!document.hidden && performance.now() - shown >= REFRESH_AGES_EVERY_MS) show();
}, REFRESH_AGES_EVERY_MS);
onChoice(show);
new ResizeObserver(show).observe(byId("chart"));
