/**
 * The search page. One question at a time: whatever changes it goes through `ask`, which puts it into the address,
 * the form and the server's hands, and shows what comes back.
 */
import * as dropping from "./dropping.js";
import { make, shown, the } from "./element.js";
import * as filters from "./filters.js";
import { clear, endWaiting, showHits, showWaiting } from "./hits.js";
import * as keys from "./keys.js";
import { recalled, remember } from "./memory.js";
import { named, partOf, showParts } from "./parts.js";
import { body, empty, isAsked, lookedFor, told, unshared, withoutFilters } from "./question.js";
import { recordOrStop } from "./recorder.js";
import { ServerError, address, dropToken, info, search } from "./server.js";
import { alarm, lostWords, showBusy, showError, showLost, showNothing, showState, tell } from "./states.js";
import { putAway, showStart } from "./tour.js";
import * as writing from "./writing.js";

/**
 * @typedef {import("./question.js").Question} Question
 * @typedef {import("./server.js").Hit} Hit
 * @typedef {{push?: boolean, focus?: boolean}} How push: a step of the history; focus: go to the first hit
 */

const MAX_BODY_BYTES = 16e6;
const MODALITIES = ["image", "sound", "speech", "text"]; // of a server that does not say
const MOST_WAITS = 5; // for a busy server
const WAITING_S = 0.15; // before the page says so

/** @type {Question} */
let question = empty();
/** @type {import("./server.js").Info} */
let known = {};
let asking = new AbortController();
/** Of the index, when it was asked; "": not asked yet. */
let version = "";
const tries = {
  ask: (/** @type {string} */ words) => ask({ ...question, words, page: 1 }),
  askBy: searchBy,
  choose: () => the("file").click(),
  record,
};

/** @param {Question} next @param {How} [how] */
async function ask(next, { push = true, focus = false } = {}) {
  question = { ...next, lost: push ? [] : next.lost };
  if (push) remember(question);
  alarm("");
  showChange(false);
  write();
  asking.abort();
  asking = new AbortController();
  if (!isAsked(question)) {
    start();
    return;
  }
  putAway();
  await answered(asking.signal, focus);
}

/** @param {AbortSignal} signal @param {boolean} focus */
async function answered(signal, focus) {
  const slow = setTimeout(() => {
    showState();
    showWaiting();
    tell(`Searching for ${told(question)} …`);
  }, 1000 * WAITING_S);
  try {
    show(await patiently(signal, () => clearTimeout(slow)), focus);
  } catch (error) {
    if (!signal.aborted) refused(error);
  } finally {
    clearTimeout(slow);
    if (!signal.aborted) endWaiting();
  }
}

/**
 * Ask, and again where the server is busy and says when.
 * @param {AbortSignal} signal
 * @param {() => void} busy is called before that is said
 */
async function patiently(signal, busy) {
  const asked = await body(question);
  for (let nWaits = 0; ; nWaits += 1) {
    try {
      return await search(asked, signal);
    } catch (error) {
      if (!(error instanceof ServerError) || error.status !== 503 || nWaits === MOST_WAITS) throw error;
      busy();
      clear();
      showBusy(error.retry_s, error.message);
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.retry_s));
      signal.throwIfAborted();
    }
  }
}

/** @param {import("./server.js").Answer} answer @param {boolean} focus */
function show(answer, focus) {
  const hits = answer.hits.slice(0, question.k);
  const hasMore = answer.hits.length > question.k;
  version = answer.version ?? "";
  const remove = known.writable
    ? (/** @type {Hit} */ hit, /** @type {HTMLElement} */ card) => writing.remove(hit, card, recount)
    : null;
  showHits(hits, { lookedFor: lookedFor(question), maps: known.maps, searchBy, remove });
  showPages(hasMore);
  const took = answer.took_ms === undefined ? "" : ` in ${Math.max(1, Math.round(answer.took_ms))} ms`;
  const more = hasMore ? ", and more" : "";
  tell(`${hits.length || "No"} hit${hits.length === 1 ? "" : "s"} for ${told(question)}${took}${more}. ${unshared(question)}`.trim());
  if (hits.length) showState();
  else showNothing(question, ask);
  if (focus) keys.focusHit(0);
}

/** @param {unknown} error */
function refused(error) {
  const said = error instanceof Error ? error : new Error(String(error));
  if (!(said instanceof ServerError)) console.error(said);
  clear();
  showPages(false);
  tell("");
  showError(said, () => ask(question, { push: false }));
  filters.markCondition(question.where && /^condition|condition /.test(said.message) ? said.message : "");
}

/** @param {{id: number, modality: string, path: string, text?: string | null, thumbnail?: string | null}} hit */
function searchBy(hit) {
  const picture = address(hit.thumbnail) || undefined;
  const name = hit.modality === "text" && hit.text ? hit.text.slice(0, 60) : (hit.path.split("/").pop() ?? "");
  const part = { kind: /** @type {const} */ ("like"), id: hit.id, name: shown(name), minus: false, weight: 1, picture };
  scrollTo({ top: 0 });
  ask({ ...question, words: "", not: "", parts: [part], page: 1 }, { focus: true });
}

function start() {
  clear();
  endWaiting();
  showPages(false);
  tell("");
  if (question.lost.length) showLost(question.lost);
  else showStart(known, tries);
}

/** The form and the title as the question is. */
function write() {
  the("words").value = question.words;
  filters.write(question);
  const isCombined = question.parts.length + (question.words || question.not ? 1 : 0) > 1;
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
  scrollTo({ top: 0 });
  ask({ ...question, page: question.page + step }, { focus: true });
}

/** What the address asks, on the way through the history too. */
function recall() {
  ask(recalled(), { push: false });
  if (question.lost.length && isAsked(question)) alarm(lostWords(question.lost));
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
  const items = Object.values(known.counts ?? {}).reduce((sum, count) => sum + count, 0);
  the("about").replaceChildren(
    make(
      "span",
      {},
      [`${items.toLocaleString()} items`, known.model ? shown(known.model) : ""].filter(Boolean).join(" · "),
    ),
  );
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
  const now = await info().catch(() => known);
  showChange(now.version !== undefined && now.version !== version);
}

/** @param {boolean} isShown */
function showChange(isShown) {
  the("changed").hidden = !isShown;
}

function watch() {
  the("ask").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    ask(written());
  });
  filters.watch(
    () => ask(written()),
    () => ask(withoutFilters(written())),
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
  the("help").addEventListener("click", () => the("keys").showModal());
  the("tour-again").addEventListener("click", () => {
    the("keys").close();
    ask(empty());
    showStart(known, tries, true);
  });
  keys.watch(() => the("keys").showModal());
  the("again").addEventListener("click", () => {
    the("words").focus(); // the button goes
    ask(question, { push: false });
  });
  document.addEventListener("visibilitychange", noticeChange);
  window.addEventListener("popstate", recall);
}

async function open() {
  dropToken();
  watch();
  try {
    known = await info();
  } catch (error) {
    showError(/** @type {Error} */ (error), () => location.reload());
    return;
  }
  showKnown();
  if (known.writable) writing.watch(recount);
  recall();
}

open();
