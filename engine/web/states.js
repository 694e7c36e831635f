/** What stands where hits would: nothing found, a refusal, an empty index; each says what to do. */
import { make, the } from "./element.js";
import { nFilters, withoutFilters } from "./question.js";

/** @typedef {import("./question.js").Question} Question @typedef {import("./server.js").ServerError} ServerError */

/** @param {...Node} children none: hide it */
export function showState(...children) {
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

/** @param {Question} question @param {(question: Question) => void} ask */
export function showNothing(question, ask) {
  const isNarrow = nFilters(question) > 0;
  const ways = [
    question.page > 1 ? button("To the first page", () => ask({ ...question, page: 1 })) : null,
    isNarrow ? button("Clear the filters", () => ask(withoutFilters(question))) : null,
    question.to.length ? button("Find in all modalities", () => ask({ ...question, to: [], page: 1 })) : null,
  ].filter((way) => way !== null);
  showState(
    make("h2", {}, question.page > 1 ? "No more hits" : "Nothing found"),
    make(
      "p",
      {},
      ways.length
        ? "The question is narrowed; widen it:"
        : "The index holds nothing to rank. Add media with `xmr index FOLDER`, then search again.",
    ),
    make("div", { class: "row" }, ...ways),
  );
}

/** @param {ServerError | Error} error @param {() => void} again */
export function showError(error, again) {
  const status = "status" in error ? error.status : -1;
  if (status === 401) {
    showToken(error.message);
    return;
  }
  const title =
    { 0: "No answer", 413: "Too large to send", 503: "Busy just now" }[status] ?? "That could not be searched";
  showState(
    make("h2", {}, title),
    make("p", { role: "alert" }, error.message),
    make("div", { class: "row" }, button("Try again", again)),
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

/** @param {number} seconds @param {string} sentence */
export function showBusy(seconds, sentence) {
  showState(
    make("h2", {}, "Busy just now"),
    make("p", {}, sentence),
    make("p", {}, `It is asked again in ${seconds} second${seconds === 1 ? "" : "s"}.`),
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
