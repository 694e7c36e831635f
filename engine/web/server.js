/** What the server is asked for, and its refusals as sentences. */
import { dataAddress } from "./question.js";

/**
 * @typedef {object} Hit
 * @property {number} rank
 * @property {number} score cosine
 * @property {"image" | "sound" | "speech" | "text"} modality
 * @property {string} path relative to its corpus
 * @property {number | null} start_s
 * @property {number | null} end_s
 * @property {string | null} text
 * @property {number} id
 * @property {Record<string, unknown> | null} [metadata]
 * @property {number[] | null} [folded] ids of near duplicates
 * @property {string | null} [media]
 * @property {string | null} [thumbnail]
 * @property {string | null} [waveform]
 *
 * @typedef {object} Info
 * @property {string} [model]
 * @property {string[]} [modalities] what a question may be
 * @property {Record<string, number>} [counts] items of each modality
 * @property {string[]} [maps] modalities that can be looked into
 * @property {Examples} [examples] of the index, to begin with
 * @property {boolean} [writable] whether items may be added and deleted
 * @property {number} [max_body_bytes]
 * @property {string} [version] of the index
 *
 * @typedef {object} Examples
 * @property {{id: number, modality: string, path: string, text?: string | null}[]} [items]
 * @property {string[]} [sentences]
 *
 * @typedef {{hits: Hit[], took_ms?: number, version?: string}} Answer
 */

const DEFAULT_RETRY_S = 2;
const CARD_PIXELS = 512;

/** A refusal: one sentence for the reader. */
export class ServerError extends Error {
  /** @param {string} message @param {number} status 0: no answer at all @param {string} code @param {number} retry_s */
  constructor(message, status, code = "", retry_s = 0) {
    super(message);
    this.status = status;
    this.code = code;
    this.retry_s = retry_s;
  }
}

/** @returns {Promise<Info>} */
export function info() {
  return call("/v1/info");
}

/**
 * @param {Record<string, unknown>} body
 * @param {AbortSignal} signal
 * @returns {Promise<Answer>}
 */
export function search(body, signal) {
  return post("/v1/search", body, signal);
}

/** @param {number} id @returns {Promise<Hit>} */
export function item(id) {
  return call(`/v1/items/${id}`);
}

/**
 * Where in a picture, when in a sound.
 * @param {number} id
 * @param {{text?: string, item?: number, file?: Blob, kind?: string}} by words, an item or a file
 */
export async function where(id, by) {
  const address = `/v1/items/${id}/where`;
  if (by.file && by.kind) return post(address, { [by.kind]: await dataAddress(by.file) });
  const [[name, value]] = Object.entries(by);
  return call(`${address}?${new URLSearchParams({ [name]: String(value) })}`);
}

/** Take a file into the index. @param {File} file @returns {Promise<{ids: number[]}>} */
export function addItem(file) {
  const form = new FormData();
  form.append("file", file);
  return call("/v1/items", { method: "POST", body: form });
}

/** Take an item out of the index. @param {number} id */
export function deleteItem(id) {
  return call(`/v1/items/${id}`, { method: "DELETE" });
}

/** @param {string} path @returns {Promise<{peaks: (number | number[])[], duration_s: number}>} */
export function waveform(path) {
  return call(path);
}

/**
 * An address on this server, below the page: a proxy may have put both under a prefix. "" for one elsewhere.
 * @param {string | null | undefined} path
 */
export function address(path) {
  if (!path?.startsWith("/")) return "";
  const url = new URL(`.${path}`, document.baseURI);
  return url.pathname + url.search;
}

/** The address of a small picture, large enough for a card on a fine screen. @param {string | null | undefined} path */
export function smallPicture(path) {
  const found = address(path);
  return found && `${found}${found.includes("?") ? "&" : "?"}size=${CARD_PIXELS}`;
}

/** The server has put the token into a cookie by now; what may be shared loses it. */
export function dropToken() {
  const url = new URL(location.href);
  if (!url.searchParams.has("token")) return;
  url.searchParams.delete("token");
  history.replaceState(history.state, "", url);
}

/** @param {string} path @param {Record<string, unknown>} body @param {AbortSignal} [signal] */
function post(path, body, signal) {
  const headers = { "content-type": "application/json" };
  return call(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

/** @param {string} path @param {RequestInit} [options] */
async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(address(path), { ...options, headers: { accept: "application/json", ...options.headers } });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. Start it again with `xmr serve`, then try again.", 0);
  }
  const said = await response.json().catch(() => null);
  if (response.ok && said !== null) return said;
  throw refusal(response, said);
}

/** @param {Response} response @param {any} said */
function refusal(response, said) {
  const message = said?.error?.message ?? `The server answered ${response.status}; look at what \`xmr serve\` printed.`;
  const retry_s = response.status === 503 ? Number(response.headers.get("retry-after")) || DEFAULT_RETRY_S : 0;
  return new ServerError(String(message), response.status, String(said?.error?.code ?? ""), retry_s);
}
