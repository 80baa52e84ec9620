// Questions to the server that the page came from.

// What is told to the person instead of an answer.
export class NoAnswer extends Error {}

export async function ask(address, signal) {
  let answer;
  try {
    answer = await fetch(address, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new NoAnswer("The server does not answer. Is it still running?");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new NoAnswer(told.detail ?? `The server answered ${answer.status}.`);
  return told;
}

// Run `work` when nobody has asked for it for a while; what is still under way is given up.
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
