// The report: what completed jobs used, as a table and as a chart of those that ran longest.

import { choice, onChoice } from "./address.js";
import { byId, count, duration, now, setText } from "./elements.js";
import { svg } from "./chart.js";
import { table } from "./table.js";

const REFRESH_EVERY_MS = 300_000;
const HOUR_MS = 3_600_000;
const BARS_MAX = 8;
const ROWS_MAX = 200;
const BAR = 20;
const NAMES = 0.4;

const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
const minutes = (group) => (group.ran_ms / 60_000).toLocaleString("en", { maximumFractionDigits: 1 });
const name = (group) =>
  [group.repository, group.name || "(no name)"].filter(Boolean).join(": ") + (group.server ? ` on ${group.server}` : "");
const number = (of, more = "") => ({ class: `number${more}`, text: (group) => of(group) ?? "–" });

const rows = table(byId("report"), [
  { text: name },
  number((group) => group.jobs.toLocaleString("en")),
  number(minutes),
  number((group) => duration(group.waited_median_ms), " wide"),
  number((group) => duration(group.waited_p95_ms), " wide"),
  number((group) => group.failed.toLocaleString("en")),
  number((group) => group.out_of_memory, " wide"),
  number((group) => group.memory_peak_bytes && `${Math.round(group.memory_peak_bytes / 1_048_576).toLocaleString("en")} MiB`, " wide"),
  number((group) => group.cpu_peak_millis != null ? (group.cpu_peak_millis / 1000).toFixed(1) : null, " wide"),
], () => "No jobs were completed in this time");

let report = null;

// The numbers are in the table: the chart is for the eye.
const draw = () => {
  const chart = byId("report-chart");
  if (!report || !chart.parentElement.clientWidth) return;
  const groups = report.groups.slice(0, BARS_MAX);
  const width = chart.clientWidth;
  const left = Math.round(width * NAMES);
  const longest = Math.max(1, ...groups.map((group) => group.ran_ms));
  const parts = groups.flatMap((group, index) => {
    const shown = name(group);
    // About 6 pixels for each character.
    const most = Math.max(4, Math.floor(left / 6.2) - 2);
    const label = shown.length > most ? `${shown.slice(0, most - 1)}…` : shown;
    const share = Math.max(2, (group.ran_ms / longest) * (width - left - 60));
    const y = index * BAR;
    return [
      svg("text", { x: left - 8, y: y + 14, "text-anchor": "end" }, label),
      svg("rect", { class: "ran", x: left, y: y + 4, width: share, height: BAR - 8, rx: 2 }),
      svg("text", { x: left + share + 6, y: y + 14 }, minutes(group)),
    ];
  });
  chart.setAttribute("viewBox", `0 0 ${width} ${BARS_MAX * BAR}`);
  chart.replaceChildren(...parts);
};

const leftOut = (left) => [
  [left.never_started, "never started"],
  [left.on_other_runners, "ran on other runners"],
  [left.without_times, "without known times"],
].filter(([jobs]) => jobs).map(([jobs, what]) => `${jobs.toLocaleString("en")} ${what}`).join(", ");

const show = () => {
  const hosts = new Set(report.groups.map((group) => group.host));
  for (const group of report.groups) group.server = hosts.size > 1 ? group.host : null;
  rows(report.groups.slice(0, ROWS_MAX));
  draw();
  const { total } = report;
  setText(byId("report-summary"), total
    ? `${count(total.jobs, "job")}, ${minutes(total)} minutes, ${total.failed.toLocaleString("en")} failed. Minutes of those that ran longest:`
    : "No jobs were completed in this time.");
  const rest = leftOut(report.left_out);
  const more = report.more || report.groups.length > ROWS_MAX ? "Only those that ran longest are shown. " : "";
  setText(byId("report-more"), `${more}${rest ? `Left out: ${rest}. ` : ""}All: edgerunner report`);
};

let asked = 0;

const load = async () => {
  const request = ++asked;
  const [by, hours] = [chosen("report-by"), Number(chosen("report-since"))];
  // By the sidecar's clock, which has its default for a week.
  const since = hours === 168 ? "" : `&since_ms=${now() - hours * HOUR_MS}`;
  try {
    const response = await fetch(`/api/v1/report?by=${by}${since}`);
    const body = await response.json();
    if (!response.ok) throw new Error(body.error);
    // The reader has chosen another one meanwhile.
    if (request !== asked) return;
    report = body;
    show();
  } catch (error) {
    if (request === asked) setText(byId("report-summary"), `The report is not available: ${error.message}`);
  }
};

const isShown = () => choice("view") === "report";

for (const id of ["report-by", "report-since"]) byId(id).addEventListener("change", load);
new ResizeObserver(draw).observe(byId("report-chart"));
setInterval(() => {
  if (isShown() && !document.hidden) load();
}, REFRESH_EVERY_MS);
onChoice(() => {
  if (isShown() && !report) load();
});
if (isShown()) load();
