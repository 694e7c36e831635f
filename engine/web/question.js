/** A question: words, parts and filters; as an address that can be shared, and as the body of a search. */

/**
 * @typedef {object} Part a file or an indexed item
 * @property {"image" | "sound" | "speech" | "video" | "like"} kind
 * @property {string} name
 * @property {boolean} minus what the hits should not be like
 * @property {number} weight beside the words, whose weight is 1
 * @property {Blob} [file]
 * @property {number} [id] of an item
 * @property {string} [picture] address of a small picture of it
 *
 * @typedef {object} Question
 * @property {string} words
 * @property {string} not
 * @property {Part[]} parts
 * @property {string[]} to modalities; none: all
 * @property {string} min
 * @property {string} where
 * @property {boolean} group
 * @property {string} fold
 * @property {number} k hits on a page
 * @property {number} page from 1
 * @property {string[]} lost kinds of files that an address cannot carry
 */

export const PAGE_SIZES = [24, 12, 48, 96]; // the first is the default
export const ALIKE = "0.98";

/** @returns {Question} */
export function empty() {
  return { words: "", not: "", parts: [], to: [], min: "", where: "", group: false, fold: "", k: PAGE_SIZES[0], page: 1, lost: [] };
}

/** Is there anything to search by? @param {Question} question */
export function isAsked(question) {
  return Boolean(question.words || question.parts.length);
}

/** How many filters narrow it. @param {Question} question */
export function nFilters(question) {
  return [question.not, question.min, question.where, question.group, question.fold].filter(Boolean).length;
}

/** The same question without its filters. @param {Question} question @returns {Question} */
export function withoutFilters(question) {
  return { ...question, not: "", min: "", where: "", group: false, fold: "", page: 1 };
}

/** "?q=a+dog&to=sound": what of a question can be shared. @param {Question} question */
export function toAddress(question) {
  const fields = new URLSearchParams();
  const set = (/** @type {string} */ name, /** @type {string} */ value) => value && fields.set(name, value);
  set("q", question.words);
  for (const part of question.parts) {
    if (part.kind === "like") fields.append("like", likeWritten(part));
    else fields.append("by", part.kind);
  }
  set("to", question.to.join(","));
  set("not", question.not);
  set("min", question.min);
  set("where", question.where);
  set("group", question.group ? "file" : "");
  set("fold", question.fold);
  set("k", question.k === PAGE_SIZES[0] ? "" : String(question.k));
  set("page", question.page > 1 ? String(question.page) : "");
  const written = fields.toString();
  return written ? `?${written}` : "./";
}

/** @param {string} written as toAddress writes it; what does not fit is left out @returns {Question} */
export function fromAddress(written) {
  const fields = new URLSearchParams(written);
  const get = (/** @type {string} */ name) => (fields.get(name) ?? "").trim();
  const number = (/** @type {string} */ name) => (get(name) && Number.isFinite(Number(get(name))) ? get(name) : "");
  const page = Number(get("page"));
  return {
    ...empty(),
    words: get("q"),
    not: get("not"),
    parts: fields
      .getAll("like")
      .map(likePart)
      .filter((part) => part !== null),
    to: get("to").split(",").filter(Boolean),
    min: number("min"),
    where: get("where"),
    group: get("group") === "file",
    fold: number("fold"),
    k: PAGE_SIZES.find((size) => String(size) === get("k")) ?? PAGE_SIZES[0],
    page: Number.isInteger(page) && page > 1 ? page : 1,
    lost: fields.getAll("by"),
  };
}

/** What is posted; one hit more than is shown tells whether there are more. @param {Question} question */
export async function body(question) {
  /** @type {Record<string, any>} */
  const asked = { k: question.k + 1, offset: (question.page - 1) * question.k };
  /** @type {Record<string, number[]>} */
  const weights = {};
  if (question.words) asked.text = [question.words];
  if (question.not) asked.minus_text = [question.not];
  for (const part of question.parts) {
    const name = `${part.minus ? "minus_" : ""}${part.kind}`;
    const content = part.file ? await dataAddress(part.file) : part.id;
    asked[name] = [...(asked[name] ?? []), content];
    weights[name] = [...(weights[name] ?? []), part.weight];
  }
  if (question.parts.some((part) => part.weight !== 1)) asked.weights = weights;
  if (question.to.length) asked.to = question.to;
  if (question.where) asked.where = question.where;
  if (question.min) asked.min_score = Number(question.min);
  if (question.group) asked.group = "file";
  if (question.fold) asked.fold = Number(question.fold);
  return asked;
}

/**
 * What to look for inside a hit: the words, else the first part that is looked for; null: there is none.
 * @param {Question} question
 * @returns {{text?: string, item?: number, file?: Blob, kind?: string} | null}
 */
export function lookedFor(question) {
  if (question.words) return { text: question.words };
  const part = question.parts.find((one) => !one.minus && one.weight > 0);
  if (!part) return null;
  return part.file ? { file: part.file, kind: part.kind } : { item: part.id };
}

/** The question in words, for titles and for what is read aloud. @param {Question} question */
export function told(question) {
  const names = question.parts.map((part) => `${part.minus ? "not " : ""}${part.name}`);
  return [question.words ? `“${question.words}”` : "", ...names].filter(Boolean).join(" and ");
}

/** What a link to it does not hold, as a sentence. @param {Question} question */
export function unshared(question) {
  return question.parts.some((part) => part.file) ? "A link to this search leaves out the files that you gave." : "";
}

/** "17", "-17" of what is stayed away from, "17x0.5" at half the weight. @param {Part} part */
function likeWritten(part) {
  return `${part.minus ? "-" : ""}${part.id}${part.weight === 1 ? "" : `x${part.weight}`}`;
}

/** @param {string} written as likeWritten writes it @returns {Part | null} */
function likePart(written) {
  const found = /^(-?)(\d{1,15})(?:x(\d{1,3}(?:\.\d{1,3})?))?$/.exec(written);
  if (!found) return null;
  const id = Number(found[2]);
  return { kind: "like", id, name: `item ${id}`, minus: found[1] === "-", weight: Number(found[3] ?? 1) };
}

/** @param {Blob} file @returns {Promise<string>} */
export function dataAddress(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(new Error("The file could not be read; it may have moved. Add it again."));
    reader.readAsDataURL(file);
  });
}
