// The training on the corrections of a review: a button, and the progress of its job.

import { ask, NoAnswer, send } from "./ask.js";

const $ = (id) => document.getElementById(id);
const BUSY_MS = 3000, IDLE_MS = 30_000;
const STEPS = { labels: "drawing the labels", training: "training", comparison: "comparing with the model before" };

export function createTraining({ warn }) {
  let base = null, timer = 0;

  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

  // One or two sentences about the last training, as plain text.
  function describe({ state, progress, figures, error }) {
    if (state === "queued") return "The training waits for its turn.";
    if (state === "running") {
      const { step, epochs_done: done, epochs, share } = progress;
      const count = step === "training" && epochs ? `, epoch ${done} of at most ${epochs}` : "";
      return `${Math.floor(100 * share)} %: ${STEPS[step]}${count}.`;
    }
    if (state === "failed") return `The last training failed. ${[error.message, error.remedy].filter(Boolean).join(" ")}`;
    if (state === "cancelled") return "The last training was cancelled.";
    const limits = figures.interval ? ` (${figures.interval.map(signed).join(" to ")})` : "";
    const from = `${figures.scenes} held-out piece${figures.scenes === 1 ? "" : "s"} of ground`;
    return `${figures.version} is ${figures.verdict}${figures.verdict === "no different" ? " from" : " than"} the model before: IoU ${signed(figures.difference)}${limits} on ${from}. It is used only if you take it.`;
  }

  function show({ minutes, images, job }) {
    $("training").hidden = minutes === null && !job;
    const busy = ["queued", "running"].includes(job?.state);
    $("training-start").disabled = busy || minutes === null || !images;
    const state = $("training-state"), planned = minutes === null ? "" : `It takes up to ${minutes} minutes, and then about two more.`;
    state.textContent = job ? `${describe(job)} ` : images ? planned : "Decide about some buildings first.";
    if (job) state.append(Object.assign(document.createElement("a"), { href: "jobs", textContent: "See the jobs" }));
    return busy;
  }

  async function refresh() {
    clearTimeout(timer);
    const of = base;
    if (!of) return;
    let wait = IDLE_MS;
    try {
      const found = await ask(of);
      if (of !== base) return;
      if (show(found)) wait = BUSY_MS;
    } catch (error) {
      // A server that is away comes back.
      if (!(error instanceof NoAnswer)) throw error;
    }
    if (of === base) timer = setTimeout(() => (document.hidden ? refreshLater() : refresh()), wait);
  }

  const refreshLater = () => document.addEventListener("visibilitychange", refresh, { once: true });

  $("training-start").addEventListener("click", async () => {
    $("training-start").disabled = true;
    try {
      await send(base, {});
      warn("");
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error;
      warn(error.message);
    }
    await refresh();
  });

  return {
    open(folder) {
      base = new URL(`v1/results/${encodeURIComponent(folder)}/training`, document.baseURI).href;
      return refresh();
    },
    close() {
      clearTimeout(timer);
      base = null;
      $("training").hidden = true;
    },
    refresh,
  };
}
