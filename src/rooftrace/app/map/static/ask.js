// Requests to the server of this page.

import { NO_ANSWER } from "../../words.js";

// An error whose message is shown to the person; `problem` is the server's own description.
export class NoAnswer extends Error {
  constructor(message, status = 0, problem = {}) {
    super(message);
    this.status = status;
    this.problem = problem;
  }
}

export async function ask(address, signal) {
  return answered(address, { signal, headers: { Accept: "application/json" } });
}

// Send a change; nothing is saved unless this succeeds.
export async function send(address, change) {
  return answered(address, {
    method: "POST", body: JSON.stringify(change),
    headers: { Accept: "application/json", "Content-Type": "application/json" },
  });
}

async function answered(address, request) {
  let answer;
  try {
    answer = await fetch(address, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new NoAnswer(NO_ANSWER);
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  const text = [body.detail ?? `The server answered ${answer.status}.`, body.remedy].filter(Boolean).join(" ");
  throw new NoAnswer(text, answer.status, body);
}

// Run `work` after a pause without further calls; a run that has begun is aborted.
export function later(work, ms, failed) {
  let timer = 0, running = new AbortController();
  return () => {
    clearTimeout(timer);
    running.abort();
    running = new AbortController();
    const { signal } = running;
    timer = setTimeout(() => work(signal).catch(failed), ms);
  };
}
