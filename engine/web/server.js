/** What the server is asked for, and its refusals as sentences. */

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
 * @property {string[]} [examples] sentences to begin with
 * @property {number} [max_body_bytes]
 */

const DEFAULT_RETRY_S = 2;
const CARD_PIXELS = 512;
const TOKEN = "xmr.token";

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
 * @returns {Promise<{hits: Hit[], took_ms?: number}>}
 */
export function search(body, signal) {
  return call("/v1/search", { method: "POST", body: JSON.stringify(body), signal });
}

/** @param {number} id @returns {Promise<Hit>} */
export function item(id) {
  return call(`/v1/items/${id}`);
}

/** Where in a picture, when in a sound. @param {number} id @param {Record<string, string>} by {text} or {item} */
export function where(id, by) {
  return call(`/v1/items/${id}/where?${new URLSearchParams(by)}`);
}

/** @param {string} path @returns {Promise<{peaks: (number | number[])[], duration_s: number}>} */
export function waveform(path) {
  return call(address(path));
}

/** An address on this server, or "" for one elsewhere. @param {string | null | undefined} path */
export function address(path) {
  if (!path) return "";
  const url = new URL(path, location.origin);
  return url.origin === location.origin ? url.pathname + url.search : "";
}

/** The address of a small picture, large enough for a card on a fine screen. @param {string | null | undefined} path */
export function smallPicture(path) {
  const found = address(path);
  return found && `${found}${found.includes("?") ? "&" : "?"}size=${CARD_PIXELS}`;
}

/** Keep the token of the address bar for this tab, and take it out of what may be shared. */
export function takeToken() {
  const url = new URL(location.href);
  const token = url.searchParams.get("token");
  if (token === null) return;
  sessionStorage.setItem(TOKEN, token);
  url.searchParams.delete("token");
  history.replaceState(history.state, "", url);
}

/** @param {string} path @param {RequestInit} [options] */
async function call(path, options = {}) {
  const headers = new Headers({ accept: "application/json" });
  if (options.body) headers.set("content-type", "application/json");
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.set("authorization", `Bearer ${token}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
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
