/** A question: words, parts and filters; as an address that can be shared, and as the body of a search. */

/**
 * @typedef {object} Part a file or an indexed item
 * @property {"image" | "sound" | "speech" | "video" | "like"} kind
 * @property {string} name
 * @property {boolean} minus what the hits should not be like
 * @property {number} weight beside the words and the other parts
 * @property {Blob} [file]
 * @property {number} [id] of an item
 * @property {string} [picture] address of a small picture of it
 *
 * @typedef {object} Question
 * @property {string} words
 * @property {number} weight of the words
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
const MOST_PASSED = 100_000; // hits before a page, as far as the server goes

/** @returns {Question} */
export function empty() {
  return { words: "", weight: 1, not: "", parts: [], to: [], min: "", where: "", group: false, fold: "", k: PAGE_SIZES[0], page: 1, lost: [] };
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
  set("w", question.words && question.weight !== 1 ? String(question.weight) : "");
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
  const number = (/** @type {string} */ name) => (get(name) && Math.abs(Number(get(name))) <= 1 ? get(name) : "");
  const k = PAGE_SIZES.find((size) => String(size) === get("k")) ?? PAGE_SIZES[0];
  const page = Math.floor(Number(get("page"))) || 1;
  const weight = Number(get("w"));
  return {
    ...empty(),
    words: get("q"),
    weight: weight > 0 && weight < 1000 ? weight : 1,
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
    k,
    page: Math.min(Math.max(1, page), Math.floor(MOST_PASSED / k) + 1),
    lost: fields.getAll("by"),
  };
}

/** What is posted; one hit more than is shown tells whether there are more. @param {Question} question */
export async function body(question) {
  const asked = await asks(question);
  Object.assign(asked, { k: question.k + 1, offset: (question.page - 1) * question.k });
  if (question.to.length) asked.to = question.to;
  if (question.where) asked.where = question.where;
  if (question.min) asked.min_score = Number(question.min);
  if (question.group) asked.group = "file";
  if (question.fold) asked.fold = Number(question.fold);
  return asked;
}

/** What the question is made of, with weights where they differ. @param {Question} question */
export async function asks(question) {
  /** @type {Record<string, any>} */
  const asked = {};
  /** @type {Record<string, number[]>} */
  const weights = {};
  const add = (/** @type {string} */ name, /** @type {string | number | undefined} */ content, /** @type {number} */ weight) => {
    asked[name] = [...(asked[name] ?? []), content];
    weights[name] = [...(weights[name] ?? []), weight];
  };
  if (question.words) add("text", question.words, question.weight);
  if (question.not) add("minus_text", question.not, 1);
  for (const part of question.parts) {
    add(nameOf(part), part.file ? await dataAddress(part.file) : part.id, part.weight);
  }
  if (Object.values(weights).some((of) => of.some((weight) => weight !== 1))) asked.weights = weights;
  return asked;
}

/** Is there something that the hits should be like? @param {Question} question */
export function hasLiking(question) {
  return Boolean(question.words) || question.parts.some((part) => !part.minus && part.weight > 0);
}

/**
 * The part that a refusal is of: "image 2: ..." is of the second picture, "minus_like: ..." of the item to stay away from.
 * @param {Question} question
 * @param {string} sentence
 */
export function refusedPart(question, sentence) {
  const [, name, number] = /^(\w+)(?: (\d+))?:/.exec(sentence) ?? [];
  return question.parts.filter((part) => nameOf(part) === name)[Number(number ?? 1) - 1];
}

/** @param {Part} part */
function nameOf(part) {
  return `${part.minus ? "minus_" : ""}${part.kind}`;
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
