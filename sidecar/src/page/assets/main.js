import { chart } from "./chart.js";
import { details } from "./details.js";
import { byId, now } from "./elements.js";
import { lists, onChoice } from "./lists.js";
import { follow } from "./live.js";
import { overview } from "./overview.js";
import "./search.js";

const AGES_EVERY_MS = 1000;

let board = null;
let shown = 0;

const show = () => {
  if (!board) return;
  shown = performance.now();
  overview(board, now());
  lists(board, now());
  chart(board, now());
};

follow((told) => {
  board = told;
  show();
  details(board);
});
// Ages go on while nothing else happens.
setInterval(() => {
  if (!document.hidden && performance.now() - shown >= AGES_EVERY_MS) show();
}, AGES_EVERY_MS);
onChoice(show);
new ResizeObserver(show).observe(byId("chart"));
