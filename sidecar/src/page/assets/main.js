import { chart } from "./chart.js";
import { details } from "./details.js";
import { byId, now } from "./elements.js";
import { lists, onChoice } from "./lists.js";
import { follow } from "./live.js";
import { overview } from "./overview.js";
import "./search.js";

let board = null;

const show = () => {
  if (!board) return;
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
setInterval(() => { if (!document.hidden) show(); }, 1000);
onChoice(show);
new ResizeObserver(show).observe(byId("chart"));
