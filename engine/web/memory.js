/**
 * Questions in the browser's history: in the address what it can hold, in this tab the files of the latest besides;
 * and how far down the page the reader was, at which hit.
 */
import { fromAddress, toAddress } from "./question.js";

/** @typedef {import("./question.js").Question} Question @typedef {{top: number, hit: number}} Place hit: from 0, -1 of none */

const MOST_REMEMBERED = 32; // questions, with their files
const SETTLED_S = 0.15; // after which scrolling has ended
/** By the key in the history, the oldest first. @type {Map<string, Question>} */
const remembered = new Map();

/** A step of the history, or the same step again for the same question. @param {Question} question */
export function remember(question) {
  keepPlace();
  const key = crypto.randomUUID?.() ?? String(Math.random());
  remembered.set(key, question);
  if (remembered.size > MOST_REMEMBERED) forget();
  const target = toAddress(question);
  const isSame = target === (location.search || "./");
  const isHeld = !question.parts.some((part) => part.file);
  history[isSame && isHeld ? "replaceState" : "pushState"]({ key }, "", target);
}

/** What the address asks, with the files that this tab still has. @returns {Question} */
export function recalled() {
  return remembered.get(history.state?.key) ?? fromAddress(location.search);
}

/** Where the reader was in it. @returns {Place | null} */
export function recalledPlace() {
  return history.state?.place ?? null;
}

/** Keep the place up to date. */
export function watch() {
  history.scrollRestoration = "manual"; // the hits come later
  let settling = 0;
  document.addEventListener("scroll", () => {
    clearTimeout(settling);
    settling = setTimeout(keepPlace, 1000 * SETTLED_S);
  });
  window.addEventListener("pagehide", keepPlace);
}

function keepPlace() {
  const cards = [...document.querySelectorAll("#hits .card")];
  if (!cards.length) return;
  const hit = cards.findIndex((card) => card.contains(document.activeElement));
  history.replaceState({ ...history.state, place: { top: scrollY, hit } }, "");
}

/** The oldest, and the pictures that nothing else shows. */
function forget() {
  const [[key, oldest]] = remembered;
  remembered.delete(key);
  const kept = new Set([...remembered.values()].flatMap(pictures));
  for (const picture of pictures(oldest)) if (!kept.has(picture)) URL.revokeObjectURL(picture);
}

/** @param {Question} question @returns {string[]} */
function pictures(question) {
  return question.parts.map((part) => part.picture ?? "").filter((picture) => picture.startsWith("blob:"));
}
