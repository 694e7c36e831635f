/**
 * The search page. One question at a time: whatever changes it goes through `ask`, which puts it into the address,
 * the form and the server's hands, and shows what comes back.
 */
import * as dropping from "./dropping.js";
import { shown, the } from "./element.js";
import * as filters from "./filters.js";
import { clear, endWaiting, showHits } from "./hits.js";
import * as keys from "./keys.js";
import * as large from "./large.js";
import * as memory from "./memory.js";
import { named, partOf, partOfHit, showParts, showWeight } from "./parts.js";
import { patiently } from "./patience.js";
import * as questions from "./question.js";
import { recordOrStop } from "./recorder.js";
import { ServerError, dropToken, info, search } from "./server.js";
import * as states from "./states.js";
import { putAway, showStart } from "./tour.js";
import * as writing from "./writing.js";

/**
 * @typedef {import("./question.js").Question} Question
 * @typedef {import("./server.js").Hit} Hit
 * @typedef {{id: number, modality: string, path: string, text?: string | null, thumbnail?: string | null}} Found
 * @typedef {object} How
 * @property {boolean} [push] a step of the history
 * @property {boolean} [focus] go to the first hit
 * @property {import("./memory.js").Place | null} [place] go where the reader was
 */

const MAX_BODY_BYTES = 16e6;
const MODALITIES = ["image", "sound", "speech", "text"]; // of a server that does not say

const { alarm, tell } = states;
const { empty, isAsked, told } = questions;

/** @type {Question} */
let question = empty();
/** @type {import("./server.js").Info} */
let known = {};
let asking = new AbortController();
/** Of the index, when it was asked; "": not asked yet. */
let version = "";
const tries = {
  ask: (/** @type {string} */ words, /** @type {string[]} */ to) => ask({ ...question, words, to, page: 1 }),
  askBy: searchBy,
  choose: () => the("file").click(),
  record,
};

/** @param {Question} next @param {How} [how] */
async function ask(next, { push = true, focus = false, place = null } = {}) {
  question = { ...next, lost: push ? [] : next.lost };
  if (push) memory.remember(question);
  alarm("");
  the("changed").hidden = true;
  write();
  asking.abort();
  asking = new AbortController();
  if (!isAsked(question)) {
    start();
    return;
  }
  if (push) putAway();
  the("pages").hidden = the("once").hidden = true;
  await answered(asking.signal, focus, place);
}

/** @param {AbortSignal} signal @param {boolean} focus @param {import("./memory.js").Place | null} place */
async function answered(signal, focus, place) {
  try {
    show(await patiently(question, signal, stop));
    if (focus) keys.focusHit(0);
    if (!place) return;
    keys.focusHit(place.hit);
    scrollTo({ top: place.top });
  } catch (error) {
    if (!signal.aborted) refused(error);
  } finally {
    if (!signal.aborted) endWaiting();
  }
}

function stop() {
  asking.abort();
  none();
  states.showStopped(() => ask(question, { push: false }));
}

/** @param {import("./server.js").Answer} answer */
function show(answer) {
  const hits = answer.hits.slice(0, question.k);
  const hasMore = answer.hits.length > question.k;
  version = answer.version ?? "";
  const remove = known.writable
    ? (/** @type {Hit} */ hit, /** @type {HTMLElement} */ card) => writing.remove(hit, card, recount)
    : null;
  const lookFor = questions.hasLiking(question) ? () => questions.asks(question) : null;
  showHits(hits, { parts: question.parts, lookFor, maps: known.maps, by, searchBy, remove });
  showPages(hasMore);
  states.tellHits(question, hits, hasMore, answer.took_ms);
  if (hits.length) states.showState();
  else showNothing();
}

/** With the score that the best has, where it is below the least. */
async function showNothing() {
  const asked = question;
  states.showNothing(asked, ask);
  if (!asked.min || asked.page > 1) return;
  const wider = { ...(await questions.body({ ...asked, min: "" })), k: 1 };
  const best = await search(wider, asking.signal).catch(() => null);
  if (best?.hits.length && question === asked) states.showNothing(asked, ask, best.hits[0].score);
}

/** @param {unknown} error */
function refused(error) {
  const said = error instanceof Error ? error : new Error(String(error));
  const isServers = said instanceof ServerError;
  if (!isServers) console.error(said);
  none();
  const isOfCondition = isServers && question.where && /^(where:|condition)|condition /.test(said.message);
  const told = isOfCondition ? new ServerError("The condition cannot be read; it is marked under Filters.", 400) : said;
  states.showRefusal(told, question, (next) => ask(next, { push: next !== question }));
  filters.markCondition(isOfCondition ? said.message : "");
}

/** The question that a hit asks: the filters stay. @param {Found} hit @returns {Question} */
function by(hit) {
  return { ...question, words: "", weight: 1, not: "", parts: [partOfHit(hit)], page: 1 };
}

/** @param {Found} hit */
function searchBy(hit) {
  const asked = ask(by(hit), { focus: true });
  scrollTo({ top: 0 });
  return asked;
}

/** No hits, and nothing said of any. */
function none() {
  clear();
  endWaiting();
  showPages(false);
  the("pages").hidden = the("once").hidden = true;
  tell("");
}

function start() {
  none();
  if (question.not) alarm("Add words or a file to search by; what hits should not be like is not enough.");
  if (question.lost.length) states.showLost(question.lost);
  else showStart(known, tries);
}

/** The form and the title as the question is. */
function write() {
  the("words").value = question.words;
  filters.write(question);
  const isCombined = question.parts.length + (question.words || question.not ? 1 : 0) > 1;
  showWeight(question, isCombined, (weight) => ask({ ...written(), weight }));
  showParts(question.parts, isCombined, known.modalities ?? MODALITIES, (parts) => ask({ ...written(), parts }));
  document.title = isAsked(question) ? `${told(question)} · xmr` : "xmr";
}

/** The question as the form has it, on its first page. @returns {Question} */
function written() {
  return { ...question, ...filters.read(), words: the("words").value.trim(), page: 1 };
}

/** @param {boolean} hasMore */
function showPages(hasMore) {
  the("earlier").disabled = question.page === 1;
  the("later").disabled = !hasMore;
  the("page").textContent = `Page ${question.page}`;
  the("pages").hidden = question.page === 1 && !hasMore;
}

/** @param {number} step */
function turn(step) {
  ask({ ...question, page: question.page + step }, { focus: true });
  scrollTo({ top: 0 });
}

/** What the address asks, on the way through the history too. */
function recall() {
  const found = memory.recalled();
  const missing = found.to.filter((modality) => known.counts && !known.counts[modality]);
  ask({ ...found, to: found.to.filter((one) => !missing.includes(one)) }, { push: false, place: memory.recalledPlace() });
  if (missing.length) alarm(`The index holds nothing of ${missing.map(shown).join(" and ")}, which the link asks for.`);
  if (question.lost.length && isAsked(question)) alarm(states.lostWords(question.lost));
  nameItems(question);
}

/** The items of a shared address get their names. @param {Question} unnamed */
async function nameItems(unnamed) {
  const parts = await named(unnamed.parts);
  if (question.parts !== unnamed.parts || parts.every((part, place) => part === unnamed.parts[place])) return;
  question = { ...question, parts };
  write();
}

/** @param {File[]} files */
async function add(files) {
  alarm("");
  const parts = [...question.parts];
  const refusals = [];
  for (const file of files) {
    const part = await partOf(file, known.modalities ?? MODALITIES, known.max_body_bytes ?? MAX_BODY_BYTES).catch(
      (error) => error,
    );
    if (part instanceof Error) refusals.push(part.message);
    else parts.push(part);
  }
  if (parts.length > question.parts.length) await ask({ ...written(), parts });
  if (refusals.length) alarm(refusals.join(" "));
}

function record() {
  alarm("");
  return recordOrStop((file) => add([file]), alarm);
}

/** What is here to search. */
function showKnown() {
  const takes = known.modalities ?? MODALITIES;
  filters.showModalities(known.counts ?? {}, () => ask(written()));
  filters.write(question);
  the("record").hidden = !takes.includes("sound") && !takes.includes("speech");
  states.showAbout(known);
}

/** After a change that was made here: the counts, and no notice of it. */
async function recount() {
  known = await info().catch(() => known);
  version = known.version ?? version;
  showKnown();
  if (!isAsked(question)) showStart(known, tries);
}

/** A reader who comes back to the page is told that its hits are of an index that has changed. */
async function noticeChange() {
  if (document.visibilityState !== "visible" || !version || !isAsked(question)) return;
  const [asked, now] = [version, await info().catch(() => known)];
  if (now.version && now.version !== version && asked === version) the("changed").hidden = false; // and so it stays
}

function watch() {
  the("ask").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    if (matchMedia("(pointer: coarse)").matches) the("words").blur(); // its keyboard covers the hits
    ask(written());
  });
  filters.watch(
    () => ask(written()),
    () => ask(questions.withoutFilters(written())),
  );
  dropping.watch(add, alarm);
  the("choose").addEventListener("click", tries.choose);
  the("file").addEventListener("change", () => {
    add([...the("file").files]);
    the("file").value = "";
  });
  the("record").addEventListener("click", record);
  the("earlier").addEventListener("click", () => turn(-1));
  the("later").addEventListener("click", () => turn(1));
  the("once").addEventListener("click", () => ask({ ...question, group: true, page: 1 }, { focus: true }));
  the("help").addEventListener("click", () => the("keys").showModal());
  the("tour-again").addEventListener("click", () => {
    the("keys").close();
    ask(empty());
    showStart(known, tries, true);
  });
  keys.watch(() => the("keys").showModal());
  large.watch(keys.focusHit);
  the("again").addEventListener("click", () => {
    the("words").focus(); // the button goes
    ask(question, { push: false });
  });
  document.addEventListener("visibilitychange", noticeChange);
  memory.watch();
  window.addEventListener("popstate", recall);
}

async function open() {
  dropToken();
  watch();
  try {
    known = await info();
  } catch (error) {
    states.showError(/** @type {Error} */ (error), () => location.reload());
    return;
  }
  showKnown();
  if (known.writable) writing.watch(recount);
  recall();
  if (!isAsked(question) && matchMedia("(pointer: fine)").matches) the("words").focus();
}

open();
