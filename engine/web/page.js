/**
 * The search page. One question at a time: whatever changes it goes through `ask`, which puts it into the address,
 * the form and the server's hands, and shows what comes back.
 */
import * as dropping from "./dropping.js";
import { make, shown, the } from "./element.js";
import * as filters from "./filters.js";
import { clear, endWaiting, showHits, showWaiting } from "./hits.js";
import * as keys from "./keys.js";
import { partOf, showParts } from "./parts.js";
import { PAGE, body, empty, fromAddress, isAsked, lookedFor, toAddress, told, withoutFilters } from "./question.js";
import { Recorder } from "./recorder.js";
import { ServerError, address, info, item, search, takeToken } from "./server.js";
import { alarm, lostWords, showBusy, showError, showLost, showNothing, showState, tell } from "./states.js";
import { putAway, showStart } from "./tour.js";

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
/** Questions with files, which no address holds, by the key in the history. @type {Map<string, Question>} */
const remembered = new Map();
const recorder = new Recorder();
const tries = {
  ask: (/** @type {string} */ words) => ask({ ...question, words, page: 1 }),
  choose: () => the("file").click(),
  record,
};

/** @param {Question} next @param {How} [how] */
async function ask(next, { push = true, focus = false } = {}) {
  question = { ...next, lost: push ? [] : next.lost };
  if (push) remember();
  alarm("");
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
    show(await patiently(signal), focus);
  } catch (error) {
    if (!signal.aborted) refused(error);
  } finally {
    clearTimeout(slow);
    if (!signal.aborted) endWaiting();
  }
}

/** Ask, and again where the server is busy and says when. @param {AbortSignal} signal */
async function patiently(signal) {
  const asked = await body(question);
  for (let nWaits = 0; ; nWaits += 1) {
    try {
      return await search(asked, signal);
    } catch (error) {
      if (!(error instanceof ServerError) || error.status !== 503 || nWaits === MOST_WAITS) throw error;
      clear();
      showBusy(error.retry_s, error.message);
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.retry_s));
      signal.throwIfAborted();
    }
  }
}

/** @param {{hits: Hit[], took_ms?: number}} answer @param {boolean} focus */
function show(answer, focus) {
  const hits = answer.hits.slice(0, PAGE);
  showHits(hits, lookedFor(question), known.maps, searchBy);
  showPages(answer.hits.length > PAGE);
  const took = answer.took_ms === undefined ? "" : ` in ${Math.max(1, Math.round(answer.took_ms))} ms`;
  const more = answer.hits.length > PAGE ? ", and more" : "";
  tell(`${hits.length || "No"} hit${hits.length === 1 ? "" : "s"} for ${told(question)}${took}${more}.`);
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

/** @param {Hit} hit */
function searchBy(hit) {
  const picture = address(hit.thumbnail) || undefined;
  const name = hit.modality === "text" && hit.text ? hit.text.slice(0, 60) : (hit.path.split("/").pop() ?? "");
  const part = { kind: /** @type {const} */ ("like"), id: hit.id, name: shown(name), minus: false, picture };
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
  showParts(question.parts, known.modalities ?? MODALITIES, (parts) => {
    ask({ ...written(), parts });
    the("words").focus(); // the chip that had it is gone
  });
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

function remember() {
  const key = crypto.randomUUID?.() ?? String(Math.random());
  remembered.set(key, question);
  const target = toAddress(question);
  const isSame = target === (location.search || "/");
  const isHeld = !question.parts.some((part) => part.file);
  history[isSame && isHeld ? "replaceState" : "pushState"]({ key }, "", target);
}

/** What the address asks, with the files that this tab still has. */
function recall() {
  ask(remembered.get(history.state?.key) ?? fromAddress(location.search), { push: false });
  if (question.lost.length && isAsked(question)) alarm(lostWords(question.lost));
  nameItems(question);
}

/** The items of a shared address get their names. @param {Question} unnamed */
async function nameItems(unnamed) {
  const parts = await Promise.all(
    unnamed.parts.map(async (part) => {
      if (part.id === undefined || part.picture || part.name !== `item ${part.id}`) return part;
      const found = await item(part.id).catch(() => null);
      return found
        ? {
            ...part,
            name: shown(found.path.split("/").pop() ?? part.name),
            picture: address(found.thumbnail) || undefined,
          }
        : part;
    }),
  );
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

async function record() {
  if (recorder.isOn) {
    recorder.stop();
    return;
  }
  alarm("");
  try {
    await add([await recorder.record((seconds) => showRecording(`Stop ${seconds.toFixed(0)} s`, true))]);
  } catch (error) {
    alarm(error instanceof Error ? error.message : String(error));
  } finally {
    showRecording("Record", false);
  }
}

/** @param {string} label @param {boolean} isOn */
function showRecording(label, isOn) {
  the("record").textContent = label;
  the("record").setAttribute("aria-pressed", String(isOn));
}

/** What is here to search. */
function showKnown() {
  const takes = known.modalities ?? MODALITIES;
  filters.showModalities(known.counts ?? {}, () => ask(written()));
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
  window.addEventListener("popstate", recall);
}

async function open() {
  takeToken();
  watch();
  try {
    known = await info();
  } catch (error) {
    showError(/** @type {Error} */ (error), () => location.reload());
    return;
  }
  showKnown();
  recall();
}

open();
