/** A sound that can be played, with its video where it has one: its waveform, with the seconds that were matched and those where the query is heard. */
import { clock, make, shown } from "./element.js";
import { from, toggle } from "./playing.js";
import { address, waveform } from "./server.js";

/** @typedef {import("./server.js").Hit} Hit */

const STEP_S = 0.1;

export class Sound {
  /** @param {Hit} hit @param {boolean} isVideo @param {string} [poster] a picture of the video */
  constructor(hit, isVideo, poster) {
    const name = shown(hit.path);
    this.hit = hit;
    this.start_s = hit.start_s ?? 0;
    /** @type {number[][]} */
    this.peaks = [];
    /** @type {{spans: number[][], heat: number[]} | null} */
    this.heard = null;
    this.media = make(isVideo ? "video" : "audio", {
      preload: "none",
      playsinline: isVideo,
      poster: poster || null,
      "aria-hidden": isVideo ? "true" : null, // the controls below are its own
      src: from(address(hit.media), hit.start_s),
    });
    this.duration_s = hit.end_s ?? 0;
    this.canvas = make("canvas", { "aria-hidden": "true" });
    this.seek = make("input", {
      type: "range",
      min: 0,
      max: this.duration_s,
      step: STEP_S,
      value: this.start_s,
      "aria-label": `Second of ${name}`,
      oninput: () => this.goTo(Number(this.seek.value)),
    });
    this.button = make(
      "button",
      { type: "button", class: "quiet play", "aria-label": `Play ${name}`, onclick: () => this.toggle() },
      "Play",
    );
    this.time = make("span", {}, "");
    this.element = make(
      "div",
      { class: "sound" },
      this.media,
      make("div", { class: "wave" }, this.canvas, this.seek),
      make("div", { class: "row" }, this.button, this.time),
    );
    this.#watch();
    this.draw();
  }

  toggle() {
    if (this.media.paused && this.media.ended) this.goTo(this.start_s);
    toggle(this.media, () => (this.time.textContent = "this browser cannot play it; open it instead"));
  }

  /** @param {number} seconds */
  goTo(seconds) {
    this.media.currentTime = seconds;
    this.start_s = seconds;
    this.draw();
  }

  /**
   * Show where in the sound the query is heard.
   * @param {{span_s: number[], seconds: number, spans_s?: number[][], values?: number[]}} found
   */
  mark(found) {
    const spans = found.spans_s ?? [found.span_s];
    const values = found.values ?? [1];
    const [low, high] = [Math.min(...values), Math.max(...values)];
    this.heard = { spans, heat: values.map((value) => (high > low ? (value - low) / (high - low) : 1)) };
    this.goTo(found.span_s[0]);
  }

  unmark() {
    this.heard = null;
    this.draw();
  }

  async load() {
    if (!this.hit.waveform) return;
    try {
      const found = await waveform(this.hit.waveform);
      this.peaks = found.peaks.map((peak) => (Array.isArray(peak) ? peak : [-peak, peak]));
      this.#lasts(found.duration_s);
    } catch {
      return; // it plays without its picture
    }
  }

  #watch() {
    for (const event of ["play", "pause", "ended"]) this.media.addEventListener(event, () => this.#shownAs());
    this.media.addEventListener("timeupdate", () => this.draw());
    this.media.addEventListener("durationchange", () => this.#lasts(this.media.duration));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  #shownAs() {
    this.button.textContent = this.media.paused ? "Play" : "Pause";
    this.button.setAttribute("aria-label", `${this.button.textContent} ${shown(this.hit.path)}`);
  }

  /** @param {number} duration_s */
  #lasts(duration_s) {
    if (!Number.isFinite(duration_s) || duration_s <= 0) return;
    this.duration_s = duration_s;
    this.seek.max = String(duration_s);
    this.draw();
  }

  get second() {
    return this.media.readyState ? this.media.currentTime : this.start_s;
  }

  draw() {
    this.seek.value = String(this.second);
    this.seek.setAttribute("aria-valuetext", `${clock(this.second)} of ${clock(this.duration_s)}`);
    this.time.textContent = this.duration_s ? `${clock(this.second)} / ${clock(this.duration_s)}` : "";
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const context = this.canvas.getContext("2d");
    if (!width || !context) return;
    const scale = window.devicePixelRatio || 1;
    [this.canvas.width, this.canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    context.scale(scale, scale);
    const style = getComputedStyle(this.canvas);
    this.#drawHeard(context, width, height, style.getPropertyValue("--heard"));
    this.#drawWave(context, width, height, style);
    context.fillStyle = style.getPropertyValue("--ink");
    if (this.duration_s) context.fillRect((this.second / this.duration_s) * (width - 1), 0, 1.5, height);
  }

  #drawHeard(
    /** @type {CanvasRenderingContext2D} */ context,
    /** @type {number} */ width,
    /** @type {number} */ height,
    /** @type {string} */ colour,
  ) {
    context.fillStyle = colour;
    this.heard?.spans.forEach(([start_s, end_s], place) => {
      context.globalAlpha = 0.55 * (this.heard?.heat[place] ?? 0);
      context.fillRect((start_s / this.duration_s) * width, 0, ((end_s - start_s) / this.duration_s) * width, height);
    });
    context.globalAlpha = 1;
  }

  /** Two pixels a bar; those of the matched seconds in the accent's colour. */
  #drawWave(
    /** @type {CanvasRenderingContext2D} */ context,
    /** @type {number} */ width,
    /** @type {number} */ height,
    /** @type {CSSStyleDeclaration} */ style,
  ) {
    const [matched, rest] = [style.getPropertyValue("--accent"), style.getPropertyValue("--wave")];
    const loudest = Math.max(1e-6, ...this.peaks.map(([low, high]) => Math.max(-low, high)));
    const nBars = Math.floor(width / 3);
    for (let bar = 0; bar < nBars; bar += 1) {
      const second = ((bar + 0.5) / nBars) * this.duration_s;
      const peak = this.peaks[Math.floor((bar / nBars) * this.peaks.length)] ?? [0, 0];
      context.fillStyle = this.#isMatched(second) ? matched : rest;
      const [top, bottom] = [1 - peak[1] / loudest, 1 - peak[0] / loudest].map((share) => (share * height) / 2);
      context.fillRect(bar * 3, Math.min(top, height / 2 - 1), 2, Math.max(2, bottom - top));
    }
  }

  #isMatched(/** @type {number} */ second) {
    return this.hit.end_s === null || (second >= (this.hit.start_s ?? 0) && second <= this.hit.end_s);
  }
}
