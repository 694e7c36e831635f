/** Where in a hit's picture, and when in its sound, the question is found: a button, and what it told. */
import { clock, make, shown } from "./element.js";
import { Moment } from "./moment.js";
import { overlay, placeOf } from "./overlay.js";
import { where } from "./server.js";
import { Sound } from "./sound.js";

/**
 * @typedef {import("./server.js").Hit} Hit
 * @typedef {() => Promise<Record<string, any>>} LookFor what the question is made of
 */

export class Look {
  /**
   * @param {Hit} hit
   * @param {LookFor} lookFor
   * @param {HTMLElement} view of the picture or the sound
   * @param {any} player a Sound, a Moment, or null of a picture
   */
  constructor(hit, lookFor, view, player) {
    this.hit = hit;
    this.lookFor = lookFor;
    this.view = view;
    this.sound = player instanceof Sound ? player : null;
    this.moment = player instanceof Moment ? player : null;
    if (this.moment) this.moment.opened = () => this.#hide();
    const label = this.sound ? "When?" : "Where?";
    this.button = make(
      "button",
      { type: "button", "aria-pressed": "false", "aria-label": `${label} ${shown(hit.path)}`, onclick: () => this.toggle() },
      label,
    );
    this.found = make("p", { class: "found", hidden: true, role: "status" });
  }

  toggle() {
    if (this.button.hasAttribute("aria-busy")) return;
    if (this.button.getAttribute("aria-pressed") === "true") this.#hide();
    else this.#look();
  }

  async #look() {
    this.button.setAttribute("aria-busy", "true");
    this.#tell("Looking …");
    try {
      this.#tell(this.#show(await where(this.hit.id, await this.lookFor())));
      this.button.setAttribute("aria-pressed", "true");
    } catch (error) {
      this.#tell(error instanceof Error ? error.message : String(error), true);
    } finally {
      this.button.removeAttribute("aria-busy");
    }
  }

  /** @param {any} heat @returns {string} in words */
  #show(heat) {
    if (this.sound) {
      this.sound.mark(heat);
      const [start, end] = heat.span_s.map(clock);
      return `Heard most at ${clock(heat.seconds)}, ${start}–${end}`;
    }
    this.moment?.close();
    this.view.append(overlay(heat));
    this.view.classList.add("looked");
    const heard = typeof heat.heard_s === "number" ? `, named at ${clock(heat.heard_s)} of the sound` : "";
    return `${placeOf(heat)}${heard}`;
  }

  #hide() {
    this.view.querySelector(".heat")?.remove();
    this.view.classList.remove("looked");
    this.sound?.unmark();
    this.found.hidden = true;
    this.button.setAttribute("aria-pressed", "false");
  }

  /** @param {string} sentence @param {boolean} [isBad] */
  #tell(sentence, isBad = false) {
    this.found.hidden = false;
    this.found.className = isBad ? "found bad" : "found";
    this.found.textContent = sentence;
  }
}
