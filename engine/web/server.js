/** What the server is asked for, and its refusals as sentences. */

/**
 * @typedef {object} Hit
 * @property {number} rank
 * @property {number} score cosine
 * @property {"image" | "sound" | "speech" | "text"} modality
 * @property {"image" | "audio" | "video" | "text"} medium of its file
 * @property {string} path relative to its corpus
 * @property {number | null} start_s
 * @property {number | null} end_s
 * @property {number | null} [line] of a text or table, counted from 1
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
const PATIENCE_S = 60; // with a server that does not answer, longer than one that is well takes
const UPLOAD_S = 3600; // of a large file over a slow line
const GONE = "The server does not answer. Start it again with `xmr serve`, then try again.";
const LATE = "The server has not answered in time. It may have too much to do; try again later.";
const CARD_PIXELS = 512; // enough for a card on a fine screen
const LARGE_PIXELS = 1024; // the most that a server makes

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

/** @param {number} id @returns {Promise<Hit & {n_of_file?: number}>} */
export function item(id) {
  return call(`/v1/items/${id}`);
}

/**
 * Where in a picture, when in a sound.
 * @param {number} id
 * @param {Record<string, any>} asked what a question is made of
 */
export function where(id, asked) {
  const path = `/v1/items/${id}/where`;
  const [[name, contents], ...others] = Object.entries(asked);
  const isShort = ["text", "like"].includes(name) && contents.length === 1 && !others.length;
  return isShort ? call(`${path}?${new URLSearchParams({ [name]: contents[0] })}`) : post(path, asked);
}

/** Take a file into the index. @param {File} file @returns {Promise<{ids: number[], notes?: string[]}>} */
export function addItem(file) {
  const form = new FormData();
  form.append("file", file);
  return call("/v1/items", { method: "POST", body: form }, UPLOAD_S);
}

/**
 * Take an item out of the index, or with it all of its file.
 * @param {number} id
 * @param {boolean} isWholeFile
 * @returns {Promise<{deleted: number, ids?: number[]}>}
 */
export function deleteItem(id, isWholeFile) {
  return call(`/v1/items/${id}${isWholeFile ? "?whole_file=true" : ""}`, { method: "DELETE" });
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

/** The address of a picture for a card. @param {string | null | undefined} path */
export function smallPicture(path) {
  return pictureOf(path, CARD_PIXELS);
}

/** The address of a picture to look at. @param {string | null | undefined} path */
export function largePicture(path) {
  return pictureOf(path, LARGE_PIXELS);
}

/** @param {string | null | undefined} path @param {number} pixels of its longer side */
function pictureOf(path, pixels) {
  const found = address(path);
  return found && `${found}${found.includes("?") ? "&" : "?"}size=${pixels}`;
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

/** @param {string} path @param {RequestInit} [options] @param {number} [patience_s] */
async function call(path, options = {}, patience_s = PATIENCE_S) {
  const late = AbortSignal.timeout(1000 * patience_s);
  const signal = options.signal ? AbortSignal.any([options.signal, late]) : late;
  const headers = { accept: "application/json", ...options.headers };
  let response;
  let said;
  try {
    response = await fetch(address(path), { ...options, headers, signal });
    said = await response.json().catch((error) => (error instanceof SyntaxError ? null : Promise.reject(error)));
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ServerError(late.aborted ? LATE : GONE, 0);
  }
  if (response.ok && said !== null) return said;
  throw refusal(response, said);
}

/** @param {Response} response @param {any} said */
function refusal(response, said) {
  const message = said?.error?.message ?? `The server answered ${response.status}; look at what \`xmr serve\` printed.`;
  const retry_s = response.status === 503 ? Number(response.headers.get("retry-after")) || DEFAULT_RETRY_S : 0;
  return new ServerError(String(message), response.status, String(said?.error?.code ?? ""), retry_s);
}
