/** The keyboard: to the box, over the hits, and what can be done with the one in focus. */
import { the } from "./element.js";
import * as filters from "./filters.js";
import { doings } from "./hits.js";

const WRITING = "input:not([type=checkbox]):not([type=range]), textarea, select";

/** @param {() => void} help */
export function watch(help) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
    const target = /** @type {Element} */ (event.target);
    const isDone = target.matches(".card") ? onCard(event, target) : onPage(event, target, help);
    if (isDone) event.preventDefault();
  });
  the("skip").addEventListener("click", (/** @type {Event} */ event) => {
    event.preventDefault(); // a step of the history would ask anew
    if (cards().length) toHits();
    else the("hits").focus();
  });
  the("hits").addEventListener("focusin", (/** @type {FocusEvent} */ event) => {
    const card = /** @type {Element} */ (event.target).closest(".card");
    if (card) makeCurrent(card);
  });
}

/** Put the focus on a hit. @param {number} place from 0 */
export function focusHit(place) {
  cards()[place]?.focus();
}

/** @returns {boolean} whether the key was ours */
function onPage(/** @type {KeyboardEvent} */ event, /** @type {Element} */ target, /** @type {() => void} */ help) {
  if (event.key === "Escape" && target.closest(".card")) return toCard(target);
  if (event.key === "Escape" && filters.close()) return true;
  if (target.id === "words" && event.key === "ArrowDown" && cards().length) return toHits();
  if (target.matches(WRITING)) return false;
  if (event.key === "/") return toBox();
  if (event.key !== "?") return false;
  help();
  return true;
}

/** @returns {boolean} whether the key was ours */
function onCard(/** @type {KeyboardEvent} */ event, /** @type {Element} */ card) {
  const does = doings(card);
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: nColumns(), ArrowUp: -nColumns() };
  const all = cards();
  const place = all.indexOf(/** @type {HTMLElement} */ (card));
  if (event.key in steps) return move(all, place, place + steps[/** @type {keyof typeof steps} */ (event.key)]);
  if (event.key === "Home") return move(all, place, 0);
  if (event.key === "End") return move(all, place, all.length - 1);
  if (event.key === "Escape" || event.key === "/") return toBox();
  if (event.key === "Enter") does?.search();
  else if (event.key === " ") does?.play?.();
  else if (event.key.toLowerCase() === "w") does?.look?.();
  else if (event.key.toLowerCase() === "l") does?.enlarge();
  else return event.key === "?" ? (the("help").click(), true) : false;
  return true;
}

/** Above the first row is the box; below the last nothing. */
function move(/** @type {HTMLElement[]} */ all, /** @type {number} */ from, /** @type {number} */ to) {
  if (to < 0 && from - to > 1) return toBox();
  all[to]?.focus();
  return true;
}

function toBox() {
  the("words").focus();
  the("words").select();
  return true;
}

function toHits() {
  (cards().find((card) => card.tabIndex === 0) ?? cards()[0]).focus();
  return true;
}

/** From a button of a card to the card. @param {Element} target */
function toCard(target) {
  const card = /** @type {HTMLElement} */ (target.closest(".card"));
  card.querySelector("details")?.removeAttribute("open");
  card.focus();
  return true;
}

/** The one hit that Tab comes to. @param {Element} current */
function makeCurrent(current) {
  for (const card of cards()) card.tabIndex = card === current ? 0 : -1;
}

/** @returns {HTMLElement[]} */
function cards() {
  return [...the("hits").querySelectorAll(".card")];
}

function nColumns() {
  const tops = cards().map((card) => card.getBoundingClientRect().top);
  return Math.max(1, tops.filter((top) => Math.abs(top - tops[0]) < 2).length);
}
