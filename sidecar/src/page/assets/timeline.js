// The time line of a job: from GitHub's queue to its end, with the duration of each stage.

import { el, duration, setBar, time } from "./elements.js";

// Prefix of the delivery of a job that was found by polling GitHub.
export const LOOK_UP = "look-up-";

// `[name, at, note]`, in the order of a job's life. `at` is null for what is still to come, and
// undefined for what is not known.
const stages = (job, runner) => {
  const over = job.state === "completed";
  const toCome = over ? undefined : null;
  const begun = job.started_ms ?? job.completed_ms;
  // A runner that was there before the job was not launched for it.
  const own = runner && (job.created_ms ?? job.queued_ms) <= runner.created_ms;
  const ofRunner = (at) => (!runner ? (begun == null ? toCome : undefined) : own ? at ?? (begun == null ? toCome : undefined) : undefined);
  const stored = job.delivery.startsWith(LOOK_UP) ? "Found by polling GitHub" : "Webhook received and stored";
  return [
    ["Queued at GitHub", job.created_ms, "by GitHub's clock"],
    [stored, job.queued_ms],
    ["Runner launch began", ofRunner(job.launched_ms)],
    ["Runner's container started", ofRunner(job.container_ms)],
    ["Runner online", own ? runner.online_ms : undefined],
    ["In progress", job.started_ms ?? (over ? undefined : null), runner && !own ? "a runner that was there before took it" : ""],
    [over ? `Completed: ${(job.conclusion || "done").replaceAll("_", " ")}` : "Completed", job.completed_ms ?? null],
  ];
};

export const timeline = (job, runner) => {
  const known = stages(job, runner).filter(([, at]) => at !== undefined);
  const done = known.filter(([, at]) => at !== null).sort(([, a], [, b]) => a - b);
  const open = known.filter(([, at]) => at === null);
  const whole = Math.max(1, (done.at(-1)?.[1] ?? 0) - (done[0]?.[1] ?? 0));
  const item = ([name, at, note], index) => {
    const taken = index ? at - done[index - 1][1] : null;
    const bar = el("div", { class: "bar meter", "aria-hidden": "true" });
    if (index) {
      const before = done[index - 1][1] - done[0][1];
      setBar(bar, [["panel", before], ["busy", Math.max(taken, whole / 100)]], whole * 1.01);
    }
    return el("li", {},
      el("div", {}, el("b", { text: name }), note ? el("span", { class: "note", text: ` ${note}` }) : null, index ? bar : null),
      el("span", { text: taken === null ? "" : `+${duration(taken)}` }), el("time", { class: "at", datetime: new Date(at).toISOString(), text: time(at) }));
  };
  return el("ol", { class: "steps" }, ...done.map(item),
    ...open.map(([name]) => el("li", { class: "open" }, el("div", {}, el("b", { text: name })), el("span", { text: "not yet" }))));
};
