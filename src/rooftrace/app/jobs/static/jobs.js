// Upload scenes, show the progress of jobs and link to their results, with the API /v1/jobs.

import { inPageTerms, sentence, uploadScene } from "./upload.js";

const ROOT = new URL("v1/jobs", document.baseURI).href;
const PAGE_JOBS = 50; // jobs that "Older jobs" adds
// Of all jobs together: a stream for each would use up the browser's six connections to a server.
const POLL_MS = 1000, IDLE_POLL_MS = 5000;
const ENDED = ["done", "failed", "cancelled"];
const $ = (id) => document.getElementById(id);
const rows = new Map(); // by id: { row, first }
let pages = 1, timer = 0, refreshing = Promise.resolve(), lost = false;
let uploading = Promise.resolve(); // the end of the last upload: one goes after the other

const number = (value) => value.toLocaleString("en-US");
const percent = (share) => `${Math.floor(100 * share)} %`;

function duration(seconds) {
  if (seconds < 59.5) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// The state as the API names it, with the progress in percent and the time that is left.
function stateText(job, entry) {
  if (job.state !== "running") {
    entry.first = null;
    return job.state;
  }
  // Measured from the first progress that this page saw: the clock of the server may differ, and a
  // job that was resumed has done a part of its work before its start.
  const { share } = job.progress, now = performance.now() / 1000;
  entry.first ??= { at: now, share };
  const { at, share: before } = entry.first;
  const left = (now - at) / (share - before) * (1 - share);
  const ending = share > before && left > 0 ? ` · about ${duration(left)} left` : "";
  return `running · ${percent(share)}${ending}`;
}

function showMessage(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

// A request that was refused, or that got no answer.
class RequestError extends Error {
  constructor(message, status = 0, type = "") {
    super(message);
    this.status = status;
    this.type = type;
  }
}

async function request(url, options) {
  const answer = await fetch(url, options).catch(() => {
    throw new RequestError("The server does not answer. Is it still running?");
  });
  const body = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) {
    const text = body ? sentence(body) : `The server answered ${answer.status}.`;
    throw new RequestError(text, answer.status, body?.type);
  }
  return body;
}

function withMessage(work) {
  return async () => {
    showMessage("");
    try {
      await work();
    } catch (error) {
      showMessage(error.message);
    }
  };
}

function figures(job) {
  const { pixels_done: done, pixels, buildings } = job.progress;
  const size = `${(pixels / 1e6).toFixed(1)} Mpx`;
  if (job.state === "done" && job.figures) {
    const share = (100 * job.figures.built_up_share).toFixed(1);
    // A job without polygons has no number of buildings.
    const found = job.figures.buildings === null ? "" : `${number(job.figures.buildings)} buildings · `;
    return `${found}${share} % built up · ${size} in ${job.figures.seconds.toFixed(1)} s`;
  }
  if (job.state === "queued") return size;
  if (ENDED.includes(job.state)) return `${(done / 1e6).toFixed(1)} of ${size} were done`;
  return `${(done / 1e6).toFixed(1)} of ${size} · ${number(buildings)} buildings so far`;
}

// Ask before a review is lost, also one that was begun after the row was drawn.
async function remove(url, name) {
  try {
    await request(url, { method: "DELETE" });
  } catch (error) {
    if (error.type !== "/problems/job-reviewed") throw error;
    const sure = confirm(`The buildings of ${name} have been reviewed. Remove them with all decisions of the review?`);
    if (sure) await request(`${url}?discard_review=true`, { method: "DELETE" });
  }
}

function rowOf(job) {
  const row = $("job").content.firstElementChild.cloneNode(true), url = `${ROOT}/${job.id}`;
  const post = (address) => () => request(address, { method: "POST" });
  const works = { cancel: post(`${url}/cancel`), remove: () => remove(url, job.name) };
  for (const [name, work] of Object.entries(works)) {
    row.querySelector(`.${name}`).onclick = withMessage(async () => {
      await work();
      await refresh();
    });
  }
  return row;
}

// The row of a job. One that cannot be drawn leaves all others as they are.
function show(job) {
  if (!rows.has(job.id)) rows.set(job.id, { row: rowOf(job), first: null });
  const entry = rows.get(job.id);
  try {
    draw(job, entry);
  } catch (error) {
    reportError(error);
    entry.row.querySelector(".figures").textContent = "This page cannot show the job.";
  }
  return entry.row;
}

function draw(job, entry) {
  const { row } = entry;
  const ended = ENDED.includes(job.state);
  const part = (name) => row.querySelector(name);
  row.dataset.state = job.state;
  part("h2").textContent = job.name;
  part(".state").textContent = stateText(job, entry);
  part("progress").value = job.progress.share;
  part("progress").hidden = ended;
  part("progress").setAttribute("aria-label", `Progress of ${part("h2").textContent}`);
  part(".figures").textContent = figures(job) + (job.reviewed ? " · reviewed: kept until you remove it" : "");
  part(".error").hidden = !job.error;
  part(".error").textContent = job.error ? inPageTerms([job.error.message, job.error.remedy].filter(Boolean).join(" ")) : "";
  part(".archive").hidden = job.state !== "done";
  part(".map").hidden = part(".review").hidden = job.state !== "done";
  part(".map").href = new URL(`map#job-${job.id}`, document.baseURI).href;
  part(".review").href = new URL(`map#job-${job.id}//review`, document.baseURI).href;
  part(".tiles").hidden = !job.links.tiles;
  part(".tiles").href = `${ROOT}/${job.id}/buildings.pmtiles`;
  part(".archive").href = `${ROOT}/${job.id}/results.zip`;
  part(".cancel").hidden = ended;
  part(".remove").hidden = !ended;
}

// The list of the server is the only source of the rows: jobs of other clients appear, and those
// that expired or were removed elsewhere go.
async function load() {
  const jobs = [];
  let older = `${ROOT}?limit=${PAGE_JOBS}`;
  for (let page = 0; older && page < pages; page += 1) {
    const list = await request(older);
    jobs.push(...list.jobs);
    // Only the query is used: behind a proxy the API may have another path.
    older = list.next && ROOT + new URL(list.next, document.baseURI).search;
  }
  const shown = new Set(jobs.map((job) => job.id));
  for (const [id, { row }] of rows) {
    if (shown.has(id)) continue;
    row.remove();
    rows.delete(id);
  }
  jobs.forEach((job, at) => {
    const row = show(job), there = $("jobs").children[at];
    // A row that moved would lose the focus of its button.
    if (row !== there) $("jobs").insertBefore(row, there ?? null);
  });
  $("none").hidden = rows.size > 0;
  $("older").hidden = !older;
}

// One request after the other: an answer that is late does not replace a newer one.
function refresh() {
  refreshing = refreshing.then(async () => {
    clearTimeout(timer);
    try {
      await load();
      if (lost) showMessage("");
      lost = false;
    } catch (error) {
      if (!(error instanceof RequestError)) {
        reportError(error);
      } else if (error.status === 404) {
        // The job at the end of a page may have expired: begin again with the first page.
        pages = 1;
      } else {
        lost = true;
        showMessage(error.message);
      }
    }
    const busy = [...rows.values()].some(({ row }) => !ENDED.includes(row.dataset.state));
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(refresh, busy ? POLL_MS : IDLE_POLL_MS);
  });
  return refreshing;
}

async function upload(file) {
  const row = $("upload").content.firstElementChild.cloneNode(true);
  const part = (name) => row.querySelector(name);
  part("h2").textContent = file.name;
  part(".state").textContent = "waits for the upload before it";
  $("uploads").append(row);
  const options = Object.fromEntries(["gsd", "threshold", "bands", "stretch"].map((name) => [name, $(name).value.trim()]).filter(([, value]) => value));
  const turn = uploading;
  let cancelled = false, xhr = null;
  part(".cancel").onclick = () => {
    cancelled = true;
    xhr?.abort();
    row.remove();
  };
  uploading = turn.then(async () => {
    if (cancelled) return;
    const begun = uploadScene(file, options, (share) => {
      part("progress").value = share;
      part(".state").textContent = share < 1 ? `uploading · ${percent(share)}` : "uploaded; the server reads it";
    });
    xhr = begun.xhr;
    try {
      await begun.job;
      await refresh();
    } catch (error) {
      if (error.name !== "AbortError") showMessage(error.message);
    }
    row.remove();
  });
}

function uploadAll(files) {
  showMessage("");
  for (const file of files) upload(file);
}

$("form").addEventListener("submit", (event) => event.preventDefault());
$("file").addEventListener("change", () => {
  uploadAll($("file").files);
  $("file").value = "";
});
$("example").addEventListener("click", withMessage(async () => {
  const answer = await fetch(new URL("jobs/static/example.tif", document.baseURI));
  if (!answer.ok) throw new Error(`The server has no example scene (${answer.status}).`);
  uploadAll([new File([await answer.blob()], "example.tif")]);
}));
// A file that misses the marked place would otherwise replace the page.
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("dragging", name === "dragenter" || name === "dragover");
    if (name === "drop") uploadAll(event.dataTransfer.files);
  });
}

$("older").onclick = async () => {
  pages += 1;
  await refresh();
};
document.addEventListener("visibilitychange", refresh);
refresh();
