// The chart of queue times: how long jobs waited for a runner.

import { byId, count, el, duration, setText } from "./elements.js";
import { open } from "./details.js";

const STEP_MS = 300_000;
const SPAN_MS = 6 * 3_600_000;
const LEFT = 44;
const BOTTOM = 18;
const NICE_MS = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400].map((s) => s * 1000);

export const svg = (name, attributes, text) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
};

const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

let drawn = "";
let steps = [];

export const chart = (dashboard, now) => {
  const element = byId("chart");
  const [width, height] = [element.clientWidth, element.clientHeight];
  // Another view is shown.
  if (!width) return;
  const end = Math.floor(now / STEP_MS) * STEP_MS + STEP_MS;
  const state = JSON.stringify([dashboard.queue_times, end, width, height]);
  if (state === drawn) return;
  drawn = state;
  steps = Object.entries(dashboard.queue_times)
    .map(([at, step]) => ({ at: Number(at), ...step }))
    .filter(({ at }) => at >= end - SPAN_MS)
    .sort((a, b) => a.at - b.at);

  const longest = Math.max(1, ...steps.map((step) => step.longest_ms));
  const top = NICE_MS.find((ms) => ms >= longest) ?? longest;
  const x = (at) => LEFT + ((at - (end - SPAN_MS)) / SPAN_MS) * (width - LEFT);
  const y = (ms) => 6 + (1 - ms / top) * (height - BOTTOM - 6);
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    const at = y(top * share);
    parts.push(svg("line", { class: "grid", x1: LEFT, x2: width, y1: at, y2: at }));
    parts.push(svg("text", { x: LEFT - 8, y: at + 4, "text-anchor": "end" }, share ? duration(top * share) : "0"));
  }
  const hours = width < 420 ? 2 : 1;
  for (let at = Math.ceil((end - SPAN_MS) / 3_600_000) * 3_600_000; at < end; at += hours * 3_600_000) {
    if (x(at) > LEFT + 12 && x(at) < width - 16) parts.push(svg("text", { x: x(at), y: height - 3, "text-anchor": "middle" }, clock(at)));
  }
  const bar = Math.max(2, (width - LEFT) / (SPAN_MS / STEP_MS) - 2);
  for (const step of steps) {
    for (const [name, ms] of [["longest", step.longest_ms], ["median", step.median_ms]]) {
      const from = Math.min(y(ms), y(0) - 2);
      parts.push(svg("rect", { class: name, x: x(step.at) + 1, y: from, width: bar, height: y(0) - from, rx: 1 }));
    }
  }
  element.setAttribute("viewBox", `0 0 ${width} ${height}`);
  element.replaceChildren(...parts);

  const jobs = steps.reduce((sum, step) => sum + step.jobs, 0);
  const worst = steps.reduce((a, b) => (b.longest_ms > (a?.longest_ms ?? -1) ? b : a), null);
  const last = steps.at(-1);
  setText(byId("chart-summary"), jobs
    ? `${count(jobs, "job")} started. Median at ${clock(last.at)}: ${duration(last.median_ms)}. Longest: ${duration(worst.longest_ms)}, at ${clock(worst.at)}.`
    : "No job has started in this time.");
};

byId("chart-numbers").addEventListener("click", () => {
  const cells = ({ at, jobs, median_ms, longest_ms }) => [clock(at), jobs, duration(median_ms), duration(longest_ms)];
  const head = ["From", "Jobs", "Median", "Longest"].map((text) => el("th", { scope: "col", text }));
  const rows = steps.map((step) => el("tr", {}, ...cells(step).map((text) => el("td", { text }))));
  open("Queue time per 5 minutes", rows.length
    ? el("table", { class: "numbers" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows))
    : el("p", { text: "No job has started in this time." }));
});
