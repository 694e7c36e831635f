/** The microphone, as a WAV file: what it records is decoded here, so that the server needs no codec for it. */

import { the } from "./element.js";

const LONGEST_S = 30;

class Recorder {
  /** @type {MediaRecorder | null} */
  #recorder = null;
  isOn = false;

  /**
   * Record until `stop`, or for LONGEST_S; resolves with the file, rejects with a sentence.
   * @param {(seconds: number) => void} tick is called every quarter of a second
   * @returns {Promise<File>}
   */
  async record(tick) {
    this.isOn = true;
    try {
      return await this.#recordedFrom(await microphone(), tick);
    } finally {
      this.isOn = false;
      this.#recorder = null;
    }
  }

  /** @param {MediaStream} stream @param {(seconds: number) => void} tick */
  async #recordedFrom(stream, tick) {
    const recorder = (this.#recorder = new MediaRecorder(stream));
    const started = performance.now();
    const timer = setInterval(() => {
      const seconds = (performance.now() - started) / 1000;
      tick(seconds);
      if (seconds >= LONGEST_S) this.stop();
    }, 250);
    try {
      return await wavOf(await recorded(recorder));
    } finally {
      clearInterval(timer);
      for (const track of stream.getTracks()) track.stop();
    }
  }

  stop() {
    if (this.#recorder?.state === "recording") this.#recorder.stop();
  }
}

const recorder = new Recorder();

/**
 * The button starts a recording, and ends it.
 * @param {(file: File) => Promise<void>} given
 * @param {(sentence: string) => void} refused
 */
export async function recordOrStop(given, refused) {
  if (recorder.isOn) {
    recorder.stop();
    return;
  }
  try {
    await given(await recorder.record((seconds) => showRecording(`Stop ${seconds.toFixed(0)} s`, true)));
  } catch (error) {
    refused(error instanceof Error ? error.message : String(error));
  } finally {
    showRecording("Record", false);
  }
}

/** @param {string} label @param {boolean} isOn */
function showRecording(label, isOn) {
  the("record").textContent = label;
  the("record").setAttribute("aria-pressed", String(isOn));
}

/** @returns {Promise<MediaStream>} */
async function microphone() {
  if (!navigator.mediaDevices || !("MediaRecorder" in window)) {
    throw new Error(
      "Browsers record on https and on this machine's own address only; open the page there, or add a file.",
    );
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    const isRefused = error instanceof DOMException && error.name === "NotAllowedError";
    throw new Error(
      isRefused
        ? "The microphone was not allowed; allow it in the browser's settings of this page."
        : "No microphone was found; connect one, or add a sound file.",
    );
  }
}

/** @param {MediaRecorder} recorder @returns {Promise<Blob>} */
function recorded(recorder) {
  /** @type {Blob[]} */
  const blocks = [];
  return new Promise((resolve, reject) => {
    recorder.addEventListener("dataavailable", (event) => blocks.push(event.data));
    recorder.addEventListener("stop", () => resolve(new Blob(blocks, { type: recorder.mimeType })));
    recorder.addEventListener("error", () => reject(new Error("The recording broke off; record it again.")));
    recorder.start();
  });
}

/** @param {Blob} recording @returns {Promise<File>} */
async function wavOf(recording) {
  const context = new AudioContext();
  try {
    const sound = await context.decodeAudioData(await recording.arrayBuffer());
    return new File([wav(mono(sound), sound.sampleRate)], "recording.wav", { type: "audio/wav" });
  } catch {
    throw new Error("Nothing was recorded; keep recording for a second or longer.");
  } finally {
    await context.close();
  }
}

/** The mean of the channels. @param {AudioBuffer} sound */
function mono(sound) {
  const samples = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel += 1) {
    sound.getChannelData(channel).forEach((sample, place) => (samples[place] += sample / sound.numberOfChannels));
  }
  return samples;
}

/** RIFF WAVE, 16 bits, one channel. @param {Float32Array} samples @param {number} rate_hz */
export function wav(samples, rate_hz) {
  const bytes = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const name = (/** @type {number} */ at, /** @type {string} */ text) =>
    [...text].forEach((letter, place) => bytes.setUint8(at + place, letter.charCodeAt(0)));
  name(0, "RIFF");
  bytes.setUint32(4, 36 + 2 * samples.length, true);
  name(8, "WAVEfmt ");
  bytes.setUint32(16, 16, true);
  bytes.setUint16(20, 1, true); // PCM
  bytes.setUint16(22, 1, true);
  bytes.setUint32(24, rate_hz, true);
  bytes.setUint32(28, 2 * rate_hz, true);
  bytes.setUint16(32, 2, true);
  bytes.setUint16(34, 16, true);
  name(36, "data");
  bytes.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, place) =>
    bytes.setInt16(44 + 2 * place, Math.round(32767 * Math.max(-1, Math.min(1, sample))), true),
  );
  return bytes.buffer;
}
