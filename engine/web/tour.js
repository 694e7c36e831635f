/** What can be asked, shown before the first question: each step can be tried at once. */
import { make } from "./element.js";
import { button, showState } from "./states.js";

/** @typedef {import("./server.js").Info} Info */

const SEEN = "xmr.tour";
const EXAMPLES = ["a dog running on grass", "rain", "people talking in the street"];

/**
 * The tour on first use, a short line after it was put away.
 * @param {Info} info
 * @param {{ask: (words: string) => void, choose: () => void, record: () => void}} tries
 * @param {boolean} [isWanted] also when it was put away
 */
export function showStart(info, tries, isWanted = false) {
  if (info.counts && Object.values(info.counts).every((count) => count === 0)) {
    showState(
      make("h2", {}, "The index is empty"),
      make(
        "p",
        {},
        "Add media with ",
        make("code", {}, "xmr index FOLDER"),
        "; they can be found here as soon as they are in.",
      ),
    );
    return;
  }
  if (isWanted || !isPutAway()) showTour(info, tries);
  else showState(make("p", {}, "Describe what you look for, drop a file, or record. "), examples(info, tries.ask));
}

/** @param {Info} info @param {{ask: (words: string) => void, choose: () => void, record: () => void}} tries */
function showTour(info, tries) {
  const takes = info.modalities ?? [];
  const isHeard = takes.includes("sound") || takes.includes("speech");
  const steps = [
    takes.includes("text")
      ? step("Describe it.", "Words find pictures, sounds, videos and sentences alike.", examples(info, tries.ask))
      : null,
    step(
      "Show it.",
      "Drop or paste a picture, a sound or a video anywhere, or choose one.",
      make("div", { class: "row" }, button("Add a file", tries.choose)),
    ),
    isHeard
      ? step(
          "Let it be heard.",
          "Record up to half a minute.",
          make("div", { class: "row" }, button("Record", tries.record)),
        )
      : null,
    step(
      "Go on from a hit.",
      "Click one, or press Enter on it, to search by it; “Where?” and “When?” show what was found inside.",
    ),
  ];
  showState(
    make("h2", {}, "Ways to ask"),
    make("ol", { class: "tour" }, ...steps),
    make(
      "div",
      { class: "row" },
      button("Got it", () => {
        putAway();
        showStart(info, tries);
      }),
    ),
  );
}

/** @param {string} title @param {string} sentence @param {...Node} ways */
function step(title, sentence, ...ways) {
  return make("li", {}, make("strong", {}, title), " ", sentence, ...ways);
}

/** @param {Info} info @param {(words: string) => void} ask */
function examples(info, ask) {
  const sentences = info.examples?.length ? info.examples.slice(0, 4) : EXAMPLES;
  return make("div", { class: "row examples" }, ...sentences.map((words) => button(words, () => ask(words))));
}

function isPutAway() {
  try {
    return localStorage.getItem(SEEN) !== null;
  } catch {
    return false; // storage may be forbidden
  }
}

export function putAway() {
  try {
    localStorage.setItem(SEEN, "1");
  } catch {
    return;
  }
}
