// The search: finds a job or runner by a GitHub URL, an ID or a name.

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
    el("p", { text: "There is no job, run or runner with this URL, ID or name." }),
    el("p", { class: "muted", text: "Jobs appear after GitHub announces them and are kept for 35 days. Try: https://github.com/OWNER/REPO/actions/runs/RUN/job/JOB, the URL of a run, a job ID or the name of a runner." }));
};

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
byId("wanted").addEventListener("paste", () => setTimeout(search));
