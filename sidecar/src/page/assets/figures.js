// Figures that several places show, so that each is the same everywhere.

// The median is weighted by jobs, so that a quiet step counts little.
export const lastHour = (queueTimes, hourAgo) => {
  const steps = Object.entries(queueTimes).filter(([at]) => Number(at) >= hourAgo).map(([, step]) => step);
  const jobs = steps.reduce((sum, step) => sum + step.jobs, 0);
  if (!jobs) return null;
  const sorted = [...steps].sort((a, b) => a.median_ms - b.median_ms);
  let passed = 0;
  const middle = sorted.find((step) => (passed += step.jobs) >= jobs / 2);
  return { jobs, median: middle.median_ms, longest: Math.max(...steps.map((step) => step.longest_ms)) };
};

export const runningJobs = (dashboard) => Object.values(dashboard.pools).reduce((sum, pool) => sum + pool.busy, 0);

export const runnersMax = (dashboard) =>
  dashboard.runners_max ?? Object.values(dashboard.pools).reduce((sum, pool) => sum + pool.max, 0);

const day = (ms) => new Date(ms).toISOString().slice(0, 10);

// Empty until something is known.
export const runnerVersion = ({ runner_version: known }) => {
  if (!known) return "";
  const ends = known.ends_ms ? `, ends ${day(known.ends_ms)}` : known.problem ? ", end unknown" : "";
  return known.version ? `runner ${known.version}${ends}` : "runner version unknown";
};
