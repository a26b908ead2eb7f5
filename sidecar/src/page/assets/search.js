// A job and its runner, found by what people have at hand.

import { byId, el } from "./elements.js";
import { open, showJob, showRun, showRunner } from "./details.js";

const NUMBER = /^\d{1,18}$/;

const find = async (text) => {
  const [, run, job] = text.match(/\/actions\/runs\/(\d{1,18})(?:\/attempts\/\d+)?(?:\/jobs?\/(\d{1,18}))?/) ?? [];
  const [, check] = text.match(/\/[^/]+\/[^/]+\/runs\/(\d{1,18})/) ?? [];
  if (job) return showJob(job);
  if (run) return showRun(run);
  if (check) return showJob(check);
  if (NUMBER.test(text)) return (await showJob(text)) || showRun(text);
  return /^[\w.-]+$/.test(text) && showRunner(text);
};

const search = async () => {
  const text = byId("wanted").value.trim();
  if (!text || (await find(text))) return;
  open("Nothing found",
    el("p", { text: "No job, run or runner of that address, id or name is known here." }),
    el("p", { class: "muted", text: "Jobs are known once GitHub told of them, and for 30 days. Good to paste: https://github.com/OWNER/REPO/actions/runs/RUN/job/JOB, the address of a run, the id of a job, the name of a runner." }));
};

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
byId("wanted").addEventListener("paste", () => setTimeout(search));

const [, linked] = location.hash.match(/^#job=(\d{1,18})$/) ?? [];
if (linked) showJob(linked);
