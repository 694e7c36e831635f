/** Questions in the browser's history: in the address what it can hold, in this tab the files besides. */
import { fromAddress, toAddress } from "./question.js";

/** @typedef {import("./question.js").Question} Question */

/** By the key in the history. @type {Map<string, Question>} */
const remembered = new Map();

/** A step of the history, or the same step again for the same question. @param {Question} question */
export function remember(question) {
  const key = crypto.randomUUID?.() ?? String(Math.random());
  remembered.set(key, question);
  const target = toAddress(question);
  const isSame = target === (location.search || "./");
  const isHeld = !question.parts.some((part) => part.file);
  history[isSame && isHeld ? "replaceState" : "pushState"]({ key }, "", target);
}

/** What the address asks, with the files that this tab still has. @returns {Question} */
export function recalled() {
  return remembered.get(history.state?.key) ?? fromAddress(location.search);
}
