/** What stands where hits would: nothing found, a refusal, an empty index; each says what to do. */
import { make, shown, the } from "./element.js";
import { empty, nFilters, refusedPart, told, unshared, withoutFilters } from "./question.js";

/**
 * @typedef {import("./question.js").Question} Question
 * @typedef {import("./server.js").Hit} Hit
 * @typedef {import("./server.js").ServerError} ServerError
 */

const MANY_OF_A_FILE = 3; // hits of each file on a page

/** @param {...Node} children none: hide it */
export function showState(...children) {
  if (the("state").contains(document.activeElement)) the("hits").focus({ preventScroll: true });
  the("state").replaceChildren(...children);
  the("state").hidden = children.length === 0;
}

/** @param {string} sentence "" takes it away */
export function alarm(sentence) {
  the("alert").textContent = sentence;
  the("alert").hidden = !sentence;
}

/** @param {string} sentence read aloud without taking the focus */
export function tell(sentence) {
  the("told").textContent = sentence;
}

/**
 * How many hits there are, of what, and how fast; where few files fill the page, the way to one hit of each.
 * @param {Question} question
 * @param {Hit[]} hits
 * @param {boolean} hasMore
 * @param {number} [took_ms]
 */
export function tellHits(question, hits, hasMore, took_ms) {
  const took = took_ms === undefined ? "" : ` in ${Math.max(1, Math.round(took_ms))} ms`;
  const count = `${hits.length || "No"} hit${hits.length === 1 ? "" : "s"} for ${told(question)}`;
  tell(`${count}${took}${hasMore ? ", and more" : ""}. ${unshared(question)}`.trim());
  const media = hits.filter((hit) => hit.medium !== "text").map((hit) => hit.path);
  the("once").hidden = question.group || !media.length || media.length < MANY_OF_A_FILE * new Set(media).size;
}

/** What is here to search. @param {import("./server.js").Info} known */
export function showAbout(known) {
  const items = Object.values(known.counts ?? {}).reduce((sum, count) => sum + count, 0);
  const about = [`${items.toLocaleString()} items`, known.model ? shown(known.model) : ""].filter(Boolean);
  the("about").replaceChildren(make("span", {}, about.join(" · ")));
}

/**
 * @param {Question} question
 * @param {(question: Question) => void} ask
 * @param {number} [best] score of what there is, where the least is set too high
 */
export function showNothing(question, ask, best) {
  const isPast = question.page > 1;
  const choices = ways(question, ask);
  const nothing = choices.length
    ? "The question is narrowed; widen it:"
    : "The index holds nothing to rank. Add media with `xmr index FOLDER`, then search again.";
  const isTooHigh = `The best scores ${best?.toFixed(3)}, and at least ${question.min} is asked for; set it lower:`;
  showState(
    make("h2", {}, isPast ? "No more hits" : "Nothing found"),
    make("p", {}, isPast ? "This page lies past the last hit." : best === undefined ? nothing : isTooHigh),
    make("div", { class: "row" }, ...choices),
  );
}

/** What may find more. @param {Question} question @param {(question: Question) => void} ask */
function ways(question, ask) {
  return [
    question.page > 1 ? button("To the first page", () => ask({ ...question, page: 1 })) : null,
    question.min ? button("Any score", () => ask({ ...question, min: "", page: 1 })) : null,
    nFilters(question) > 0 ? button("Clear the filters", () => ask(withoutFilters(question))) : null,
    question.to.length ? button("Find in all modalities", () => ask({ ...question, to: [], page: 1 })) : null,
  ].filter((way) => way !== null);
}

/**
 * A refusal; what is refused for its content can be changed, the rest tried again.
 * @param {ServerError | Error} error
 * @param {Question} question
 * @param {(question: Question) => void} ask
 */
export function showRefusal(error, question, ask) {
  const status = "status" in error ? error.status : -1;
  if (![400, 404, 422].includes(status)) {
    showError(error, () => ask(question));
    return;
  }
  const bad = refusedPart(question, error.message);
  const without = bad && { ...question, parts: question.parts.filter((part) => part !== bad), page: 1 };
  const remove = without && button(`Remove ${bad.name}`, () => ask(without));
  showState(
    make("h2", {}, "That could not be searched"),
    make("p", { role: "alert" }, error.message),
    make("div", { class: "row" }, remove, ...ways(question, ask), button("Start again", () => ask(empty()))),
  );
}

/** @param {ServerError | Error} error @param {() => void} again */
export function showError(error, again) {
  const status = "status" in error ? error.status : -1;
  if (status === 401) {
    showToken(error.message);
    return;
  }
  const code = "code" in error ? error.code : "";
  const title =
    { busy: "Busy just now", too_slow: "That took too long" }[code] ??
    { 0: "No answer", 413: "Too large to send" }[status] ??
    "That could not be searched";
  showState(
    make("h2", {}, title),
    make("p", { role: "alert" }, error.message),
    make("div", { class: "row" }, button("Try again", again)),
  );
}

/** The reader stopped the search. @param {() => void} again */
export function showStopped(again) {
  showState(make("h2", {}, "Stopped"), make("div", { class: "row" }, button("Search again", again)));
}

/** @param {number} seconds @param {() => void} stop */
export function showSlow(seconds, stop) {
  showState(
    make("h2", {}, "No answer yet"),
    make("p", { role: "alert" }, `The server has been asked for ${seconds} seconds; it may still answer.`),
    make("div", { class: "row" }, button("Stop", stop)),
  );
}

/** The server wants its token, and asks for it where the page is opened. @param {string} sentence */
function showToken(sentence) {
  showState(
    make("h2", {}, "This server asks who you are"),
    make("p", { role: "alert" }, sentence),
    make("p", {}, "Reload the page and give the token that the server was started with."),
    make("div", { class: "row" }, button("Reload", () => location.reload())),
  );
}

/** @param {number} seconds @param {string} sentence @param {() => void} now */
export function showBusy(seconds, sentence, now) {
  showState(
    make("h2", {}, "Busy just now"),
    make("p", { role: "alert" }, sentence),
    make("p", {}, `It is asked again in ${seconds} second${seconds === 1 ? "" : "s"}.`),
    make("div", { class: "row" }, button("Try now", now)),
  );
}

/** A link held a file, which no link can. @param {string[]} kinds */
export function showLost(kinds) {
  showState(make("h2", {}, "A file is missing"), make("p", {}, lostWords(kinds)));
}

/** @param {string[]} kinds */
export function lostWords(kinds) {
  return (
    `This search was by ${kinds.map(named).join(" and ")}, which stays with the one who added it and is in no link. ` +
    "Drop it here again, or describe it."
  );
}

/** @param {string} kind */
function named(kind) {
  return { image: "a picture", sound: "a sound", speech: "speech", video: "a video" }[kind] ?? "a file";
}

/** @param {string} label @param {() => void} does */
export function button(label, does) {
  return make("button", { type: "button", class: "quiet", onclick: does }, label);
}
