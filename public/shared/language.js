// The page's language: it finds a text in the table, writes it into the page, and writes all of them anew when
// the user chooses another language. Dates, times and numbers are written by the browser's Intl.
//
// An element says which text it has: `data-text="join"` for its content, and `data-aria-label`,
// `data-placeholder` or `data-title` for these attributes. So what stands in index.html and what a module adds
// later are translated in the same way. Left out: the texts themselves (texts.js).

import { TEXTS } from './texts.js';

const ATTRIBUTES = ['aria-label', 'placeholder', 'title'];
const SELECTOR = ['text', ...ATTRIBUTES].map((name) => `[data-${name}]`).join(', ');

const parametersOf = new WeakMap(); // element → {name of its attribute, or 'text': parameters}
let language = likeBrowser();
let formats = makeFormats();

// Returns the first language of the browser that the page knows, or English. Any kind of Chinese is Chinese.
function likeBrowser() {
  const known = Object.keys(TEXTS);
  for (const wanted of navigator.languages ?? []) {
    const [base] = wanted.split('-');
    const found = known.find((each) => each.split('-')[0] === base);
    if (found) return found;
  }
  return 'en';
}

// Translates the whole page. An unknown language, or none, stands for that of the browser. Returns the language
// that the page has now.
export function setLanguage(wanted) {
  language = Object.hasOwn(TEXTS, wanted ?? '') ? wanted : likeBrowser();
  formats = makeFormats();
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll(SELECTOR)) translateElement(element);
  return language;
}

// Returns a text of the table. Of the parameters, `n` is a number and decides the plural form. A parameter may
// be a text to translate, see toText.
export function translate(key, parameters = {}) {
  let text = TEXTS[language][key] ?? TEXTS.en[key];
  if (typeof text === 'object') text = text[formats.plural.select(parameters.n)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (whole, name) => toText(parameters[name] ?? whole));
}

// Returns a string as it is, a number as the language writes it, and {key, ...parameters} as that text.
function toText(value) {
  if (typeof value === 'number') return formats.number.format(value);
  return typeof value === 'object' ? translate(value.key, value) : value;
}

// Writes a text into an element, and again whenever the language changes.
export function setText(element, key, parameters) {
  set(element, 'text', key, parameters);
}

// Writes a text into one of ATTRIBUTES, and again whenever the language changes.
export function setAttribute(element, attribute, key, parameters) {
  set(element, attribute, key, parameters);
}

// Writes a text that has no translation, or nothing, in the place of one that had.
export function setPlainText(element, text) {
  delete element.dataset.text;
  element.textContent = text;
}

function set(element, name, key, parameters) {
  element.setAttribute(`data-${name}`, key);
  parametersOf.set(element, { ...parametersOf.get(element), [name]: parameters });
  translateElement(element);
}

function translateElement(element) {
  const parameters = parametersOf.get(element) ?? {};
  const key = element.dataset.text;
  if (key) element.textContent = translate(key, parameters.text);
  for (const name of ATTRIBUTES) {
    const attributeKey = element.getAttribute(`data-${name}`);
    if (attributeKey) element.setAttribute(name, translate(attributeKey, parameters[name]));
  }
}

// Dates and numbers

function makeFormats() {
  const locale = regionalVariant();
  return {
    number: new Intl.NumberFormat(locale),
    plural: new Intl.PluralRules(language),
    time: new Intl.DateTimeFormat(locale, { timeStyle: 'short' }),
    day: new Intl.DateTimeFormat(locale, { dateStyle: 'full' }),
    moment: new Intl.DateTimeFormat(locale, { dateStyle: 'full', timeStyle: 'short' }),
    relativeDay: new Intl.RelativeTimeFormat(locale, { numeric: 'auto' }),
  };
}

// Returns the page's language as the browser's first region has it that writes it alike: the British read 16:30
// where Americans read 4:30 PM.
function regionalVariant() {
  const { language: base, script } = new Intl.Locale(language).maximize();
  const isVariant = (each) => {
    const locale = new Intl.Locale(each).maximize();
    return locale.language === base && locale.script === script;
  };
  return (navigator.languages ?? []).find(isVariant) ?? language;
}

export function formatTime(date) {
  return formats.time.format(date);
}

export function formatMoment(date) {
  return formats.moment.format(date);
}

// Returns "Today", "Yesterday", or the date.
export function formatDay(date) {
  const daysAgo = Math.round((midnight(new Date()) - midnight(date)) / 86_400_000);
  if (daysAgo !== 0 && daysAgo !== 1) return formats.day.format(date);
  const [first, ...others] = formats.relativeDay.format(-daysAgo, 'day');
  return first.toLocaleUpperCase(language) + others.join('');
}

// What formatDay rounds: a day may have 23 or 25 hours.
function midnight(date) {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate());
}
