// The words for states of jobs and phases of runners.

const CONCLUSIONS = { success: "good", failure: "bad", timed_out: "bad", startup_failure: "bad" };

// What a delivery said of its job.
export const EVENTS = { queued: ["queued", "Queued"], in_progress: ["busy", "Started"], completed: ["good", "Completed"] };

// In the order of a runner's life.
export const PHASES = {
  parking: "being parked",
  parked: "parked",
  provisioning: "launching",
  starting: "starting",
  idle: "idle",
  busy: "busy",
  leaving: "leaving",
};

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// The kind of a job's tag, and its text.
export const jobState = (job) => {
  if (job.state === "queued") return ["queued", "Waiting"];
  if (job.state === "in_progress") return ["busy", "Running"];
  return [CONCLUSIONS[job.conclusion] ?? "", capital((job.conclusion || "done").replaceAll("_", " "))];
};

export const states = (job) => jobState(job)[1];
