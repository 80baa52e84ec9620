// Upload scenes, show the progress of jobs and link to their results, with the API /v1/jobs; take
// versions of the model that trainings made, with /v1/versions.

import { sentence, uploadScene } from "./upload.js";

const ROOT = new URL("v1/jobs", document.baseURI).href;
const VERSIONS = new URL("v1/versions", document.baseURI).href;
const MAX_JOBS = 50;
const ENDED = ["done", "failed", "cancelled"];
const $ = (id) => document.getElementById(id);
const rows = new Map(); // by id: { row, events, first }
let uploading = Promise.resolve(); // the end of the last upload: one goes after the other

const number = (value) => value.toLocaleString("en-US");
const percent = (share) => `${Math.floor(100 * share)} %`;

function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.round(seconds % 3600 / 60)} min`;
}

// The state as the API names it, with the progress in percent and the time that is left.
function stateText(job, entry) {
  if (job.state !== "running") return job.state;
  const { share } = job.progress;
  const now = Date.now() / 1000;
  // A job that was resumed has done a part of its work before its start.
  if (job.attempts > 1) entry.first ??= { at: now, share };
  const { at, share: before } = entry.first ?? { at: Date.parse(job.started) / 1000, share: 0 };
  const left = (now - at) / (share - before) * (1 - share);
  const ending = share > before && left > 0 ? ` · about ${duration(left)} left` : "";
  return `running · ${percent(share)}${ending}`;
}

function showMessage(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

async function request(url, options) {
  const answer = await fetch(url, options);
  const body = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(body ? sentence(body) : `The server answered ${answer.status}.`);
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

const VERDICTS = {
  better: "better than its start model", "no different": "no different from its start model",
  worse: "worse than its start model",
};
const STEPS = { labels: "fetching the labels", training: "training", comparison: "comparing with the start model" };
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);

function trainingFigures(job) {
  if (job.state === "done") {
    const { version, verdict, difference, interval, scenes } = job.figures;
    const range = interval ? ` (95 %: ${signed(interval[0])} to ${signed(interval[1])})` : "";
    return `${version}: ${VERDICTS[verdict]} · IoU ${signed(difference)}${range} on ${number(scenes)} images that were held out`;
  }
  const { step, epochs_done: done, epochs, minutes, iou } = job.progress;
  const planned = `up to ${job.training.minutes} minutes, from ${job.training.start}`;
  if (job.state !== "running") return planned;
  const best = iou === null ? "" : ` · best IoU ${iou.toFixed(3)}`;
  const count = epochs ? ` · epoch ${done} of at most ${epochs} · ${minutes.toFixed(1)} of ${job.training.minutes} minutes` : "";
  return STEPS[step] + count + best;
}

function figures(job) {
  if (job.kind === "finetune") return trainingFigures(job);
  const { pixels_done: done, pixels, buildings } = job.progress;
  const size = `${(pixels / 1e6).toFixed(1)} Mpx`;
  if (job.state === "done" && job.figures) {
    const share = (100 * job.figures.built_up_share).toFixed(1);
    return `${number(job.figures.buildings)} buildings · ${share} % built up · ${size} in ${job.figures.seconds.toFixed(1)} s`;
  }
  if (job.state === "queued") return size;
  return `${(done / 1e6).toFixed(1)} of ${size} · ${number(buildings)} buildings so far`;
}

function show(job, first = false) {
  let entry = rows.get(job.id);
  if (!entry) {
    const row = $("job").content.firstElementChild.cloneNode(true);
    entry = { row, events: null, first: null };
    rows.set(job.id, entry);
    if (first) $("jobs").prepend(row);
    else $("jobs").append(row);
    const url = `${ROOT}/${job.id}`;
    row.querySelector(".cancel").onclick = withMessage(async () => show(await request(`${url}/cancel`, { method: "POST" })));
    row.querySelector(".remove").onclick = withMessage(async () => {
      await request(url, { method: "DELETE" });
      removeRow(job.id);
    });
    row.querySelector(".take").onclick = withMessage(async () => showVersions(await request(`${url}/take`, { method: "POST" })));
    row.querySelector(".back").onclick = withMessage(async () => showVersions(await request(`${VERSIONS}/back`, { method: "POST" })));
  }
  const { row } = entry;
  const ended = ENDED.includes(job.state);
  const part = (name) => row.querySelector(name);
  row.dataset.state = job.state;
  const training = job.kind === "finetune";
  part("h2").textContent = training ? `Fine-tuning on ${job.name}` : job.name;
  part(".state").textContent = stateText(job, entry);
  part("progress").value = job.progress.share;
  part("progress").hidden = ended;
  part("progress").setAttribute("aria-label", `Progress of ${part("h2").textContent}`);
  part(".figures").textContent = figures(job);
  part(".error").hidden = !job.error;
  part(".error").textContent = job.error ? [job.error.message, job.error.remedy].filter(Boolean).join(" ") : "";
  part(".archive").hidden = job.state !== "done";
  part(".map").hidden = part(".review").hidden = training || job.state !== "done";
  part(".map").href = new URL(`map#job-${job.id}`, document.baseURI).href;
  part(".review").href = new URL(`map#job-${job.id}//review`, document.baseURI).href;
  part(".archive").href = `${ROOT}/${job.id}/results.zip`;
  part(".cancel").hidden = ended;
  part(".remove").hidden = !ended;
  $("none").hidden = rows.size > 0;
  if (training && job.state === "done") refreshVersions();
  if (ended) {
    entry.events?.close();
    entry.events = null;
  } else if (!entry.events) {
    follow(job.id, entry);
  }
}

// The version in use has the way back; every other one can be taken.
function showVersions(page) {
  for (const version of page.versions) {
    const row = rows.get(version.job)?.row;
    if (!row) continue;
    row.querySelector(".state").textContent = version.in_use ? "in use for Label Studio" : "proposed";
    row.querySelector(".take").hidden = version.in_use;
    row.querySelector(".back").hidden = !version.in_use;
    row.querySelector(".remove").hidden = version.in_use;
  }
}

const refreshVersions = withMessage(async () => showVersions(await request(VERSIONS)));

function follow(id, entry) {
  const events = new EventSource(`${ROOT}/${id}/events`);
  entry.events = events;
  const update = (event) => show(JSON.parse(event.data));
  for (const name of ["message", "state", "progress", ...ENDED, "queued", "running"]) events.addEventListener(name, update);
  events.addEventListener("removed", () => removeRow(id));
}

function removeRow(id) {
  const entry = rows.get(id);
  entry?.events?.close();
  entry?.row.remove();
  rows.delete(id);
  $("none").hidden = rows.size > 0;
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
      show(await begun.job, true);
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
// A file that misses the marked place would otherwise replace the page.
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("dragging", name === "dragenter" || name === "dragover");
    if (name === "drop") uploadAll(event.dataTransfer.files);
  });
}

withMessage(async () => {
  const page = await request(`${ROOT}?limit=${MAX_JOBS}`);
  for (const job of page.jobs) show(job);
  $("none").hidden = rows.size > 0;
})();
