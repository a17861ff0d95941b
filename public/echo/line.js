// A line of the log: one message, one control frame, or one event of the connection. It says the most important
// in a row, and can be opened to see all of it.
//
// What is behind a row is made when the row is first opened. Left out: the order of the lines (log.js), what happens
// when (echo.js), and what a frame looks like (frame_view.js).

import { makeElement, makeText } from './elements.js';
import { makeFramePager } from './frame_pager.js';
import { setAttribute } from './language.js';
import { decodeUtf8, encodeUtf8, formatHex } from './hex.js';
import { sizeOf } from './wire.js';

const MAX_EXCERPT = 200; // characters, or bytes, in a row
const MAX_CONTENT = 65_536; // characters behind it; the rest is not kept
const MAX_BYTES = 1_024; // that are shown as hexadecimal digits
const ARROWS = { sent: '↑', received: '↓', none: '·' };

// Makes a line of this:
// - kind: text, binary, ping, pong, open, close, end, overdue or dropped.
// - direction: sent, received or none.
// - data: the content, a string or a Uint8Array; or `words`: what happened, a text to translate.
// - size: bytes of the payload, for what has one.
// - ms: how long it took, if that is known.
// - notes: what there is to say of it when it is opened, texts to translate.
// - frames: the FrameList of what it travelled in; the server may tell of them later.
export function makeLine({ kind, direction, data, words, size, ms, notes = [], frames }) {
  const item = makeElement('li', `line ${direction} ${kind}`);
  const details = makeElement('details', '');
  const shown = data === undefined ? undefined : cut(data);
  details.append(makeRow({ kind, direction, data: shown, words, size, ms }));
  const happenedAt = new Date();
  details.addEventListener('toggle', () => {
    if (!details.open) return;
    if (!details.querySelector('.body')) details.append(makeBody({ happenedAt, data: shown, size, notes, frames }));
    details.scrollIntoView({ block: 'nearest' });
  });
  item.append(details);
  return item;
}

// Keeps no more of the content than is ever shown.
function cut(data) {
  return data.slice(0, typeof data === 'string' ? MAX_CONTENT : MAX_CONTENT / 3);
}

function makeRow({ kind, direction, data, words, size, ms }) {
  const row = makeElement('summary', 'row');
  const arrow = makeElement('span', 'arrow', ARROWS[direction]);
  arrow.ariaHidden = 'true';
  row.append(arrow);
  if (direction !== 'none') row.append(makeText('span', 'visually-hidden', { key: direction }), ' ');
  row.append(makeText('span', 'kind', { key: `kind_${kind}` }), ' ', makeExcerpt(data, words), ' ');
  if (size !== undefined) row.append(makeText('span', 'size', { key: 'bytes', n: size }), ' ');
  if (ms !== undefined) row.append(makeText('span', 'ms', { key: 'milliseconds', ms: round(ms) }));
  return row;
}

function makeExcerpt(data, words) {
  if (data === undefined) return makeText('span', 'content words', words);
  if (data.length === 0) return makeText('span', 'content words', { key: 'empty' });
  const isText = typeof data === 'string';
  const excerpt = data.slice(0, MAX_EXCERPT);
  const text = isText ? excerpt.replace(/[\uD800-\uDBFF]$/, '') : formatHex(excerpt);
  const element = makeElement('bdi', isText ? 'content' : 'content code', text);
  if (excerpt.length < data.length) element.append('…');
  return element;
}

// Milliseconds are exact to a tenth in most browsers, and to one in some.
function round(ms) {
  return Math.round(ms * 10) / 10;
}

// What is behind a row. To open it adds it to the log, but that is nothing new to be read aloud.
function makeBody({ happenedAt, data, size, notes, frames }) {
  const body = makeElement('div', 'body');
  body.ariaLive = 'off';
  body.append(...notes.map((note) => makeText('p', 'note', note)));
  if (data !== undefined) body.append(...makeContent(data, size));
  const time = makeElement('time', 'note', clockTime(happenedAt));
  time.dateTime = happenedAt.toISOString();
  body.append(time);
  if (frames) body.append(makeFramePager(frames));
  return body;
}

// The content as text and as bytes, each where it has it.
function makeContent(data, size) {
  const isText = typeof data === 'string';
  const text = isText ? data : decodeUtf8(data);
  const bytes = isText ? encodeUtf8(data.slice(0, MAX_BYTES)) : data;
  const isWhole = sizeOf(data) >= (size ?? 0);
  const parts = [];
  if (text) parts.push(...makeBlock('asText', text, isWhole));
  if (bytes.length > 0) {
    const shown = bytes.slice(0, MAX_BYTES);
    const areAll = isWhole && shown.length === sizeOf(data);
    parts.push(...makeBlock('asBytes', formatHex(shown), areAll));
  }
  return parts;
}

function makeBlock(title, text, isWhole) {
  const block = makeElement('pre', 'code', text);
  block.dir = 'auto';
  block.tabIndex = 0; // it may be scrolled by keys
  block.setAttribute('role', 'group');
  setAttribute(block, 'aria-label', title);
  if (!isWhole) block.append('…');
  return [makeText('p', 'title', { key: title }), block];
}

// The time of day with its milliseconds, which Intl writes only together with a style of its own.
function clockTime(date) {
  const pad = (number, length = 2) => String(number).padStart(length, '0');
  const seconds = `${pad(date.getSeconds())}.${pad(date.getMilliseconds(), 3)}`;
  return `${pad(date.getHours())}:${pad(date.getMinutes())}:${seconds}`;
}
