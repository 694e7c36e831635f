/** What can be asked, shown before the first question: each step can be tried at once. */
import { make, shown } from "./element.js";
import { address } from "./server.js";
import { button, showState } from "./states.js";

/**
 * @typedef {import("./server.js").Info} Info
 *
 * @typedef {object} Tries
 * @property {(words: string, to: string[]) => void} ask to: modalities to find
 * @property {(item: {id: number, modality: string, path: string, text?: string | null}) => void} askBy
 * @property {() => void} choose
 * @property {() => void} record
 */

const SEEN = "xmr.tour";
const MOST_PICTURES = 4;
const MOST_SOUNDS = 3;
const MOST_SENTENCES = 4;
const EXAMPLES = ["a dog running on grass", "rain", "people talking in the street"];

/**
 * The tour on first use, a short line after it was put away.
 * @param {Info} info
 * @param {Tries} tries
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
  else showState(make("p", {}, "Describe what you look for, drop a file, or record."), examples(info, tries.ask), items(info, tries));
}

/** @param {Info} info @param {Tries} tries */
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
      items(info, tries),
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

/** Sentences, which find anything but sentences where there is more. @param {Info} info @param {Tries["ask"]} ask */
function examples(info, ask) {
  const present = Object.entries(info.counts ?? {}).flatMap(([modality, count]) => (count > 0 ? [modality] : []));
  const others = present.includes("text") ? present.filter((modality) => modality !== "text") : [];
  const held = info.examples?.sentences ?? [];
  const sentences = held.length ? held.slice(0, MOST_SENTENCES) : EXAMPLES;
  return make("div", { class: "row examples" }, ...sentences.map((words) => button(shown(words), () => ask(words, others))));
}

/** Pictures and sounds of this index. @param {Info} info @param {Tries} tries */
function items(info, tries) {
  const held = info.examples?.items ?? [];
  const pictures = held.filter((item) => item.modality === "image").slice(0, MOST_PICTURES);
  const sounds = held.filter((item) => ["sound", "speech"].includes(item.modality)).slice(0, MOST_SOUNDS);
  const buttons = [...pictures, ...sounds].map((item) => {
    const name = shown(item.path.split("/").pop() ?? "");
    return make(
      "button",
      { type: "button", class: "example", "aria-label": `Search by ${name}`, title: name, onclick: () => tries.askBy(item) },
      item.modality === "image"
        ? make("img", { src: address(`/v1/items/${item.id}/thumbnail?size=128`), alt: "", loading: "lazy" })
        : make("span", {}, `♪ ${name}`),
    );
  });
  return make("div", { class: "row" }, ...buttons);
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
