/** A question in the server's hands: what the page says while it waits, and until when it does. */
import { clear, showWaiting } from "./hits.js";
import { body, told } from "./question.js";
import { ServerError, search } from "./server.js";
import { showBusy, showSlow, showState, tell } from "./states.js";

const WAITED_FOR = ["busy", "not_ready"]; // codes of refusals that pass
const MOST_WAITS = 5; // for a busy server
const WAITING_S = 0.15; // before the page says that it searches
const SLOW_S = 10; // before it offers to stop

/**
 * The answer; a busy server is asked again when it says, or when the reader does.
 * @param {import("./question.js").Question} question
 * @param {AbortSignal} signal
 * @param {() => void} stop
 */
export async function patiently(question, signal, stop) {
  const asked = await body(question);
  for (let nWaits = 0; ; nWaits += 1) {
    const timers = [
      setTimeout(() => sayWaiting(question), 1000 * WAITING_S),
      setTimeout(() => showSlow(SLOW_S, stop), 1000 * SLOW_S),
    ];
    try {
      return await search(asked, signal);
    } catch (error) {
      if (!(error instanceof ServerError) || !WAITED_FOR.includes(error.code) || nWaits === MOST_WAITS) throw error;
      timers.forEach(clearTimeout);
      await whileBusy(error);
      signal.throwIfAborted();
    } finally {
      timers.forEach(clearTimeout);
    }
  }
}

/** @param {import("./question.js").Question} question */
function sayWaiting(question) {
  showState();
  showWaiting();
  tell(`Searching for ${told(question)} …`);
}

/** @param {ServerError} error @returns {Promise<void>} */
function whileBusy(error) {
  clear();
  tell("");
  return new Promise((resolve) => {
    setTimeout(resolve, 1000 * error.retry_s);
    showBusy(error.retry_s, error.message, resolve);
  });
}
