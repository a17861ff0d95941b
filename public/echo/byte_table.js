// The bytes of a payload, a column for each: as it travelled, the masking key, what the two make (RFC 6455, 5.3), and
// the character that it is, or belongs to.

import { makeElement, makeText } from './elements.js';
import { setAttribute } from './language.js';
import { decodeUtf8, formatHex } from './hex.js';

// Returns the table in a box in which it scrolls, where it is wider.
// - caption: a text to translate.
// - rows: {name, bytes}, of which a byte that nobody knows is null, or {name, characters} as from charactersOf.
export function makeByteTable(caption, rows) {
  const table = makeElement('table', 'bytes code');
  table.append(makeText('caption', 'visually-hidden', caption), ...rows.map(makeRow));
  const box = makeElement('div', 'wide');
  box.tabIndex = 0; // it may be scrolled by keys
  box.setAttribute('role', 'group');
  setAttribute(box, 'aria-label', caption.key, caption);
  box.append(table);
  return box;
}

function makeRow({ name, bytes, characters }) {
  const row = document.createElement('tr');
  const head = makeText('th', '', { key: name });
  head.scope = 'row';
  row.append(head);
  if (bytes) row.append(...bytes.map((byte) => makeElement('td', '', byte === null ? '??' : formatHex([byte]))));
  else row.append(...characters.map(makeCharacter));
  return row;
}

function makeCharacter({ text, size }) {
  const cell = makeElement('td', '');
  cell.append(makeElement('bdi', '', text));
  cell.colSpan = size;
  return cell;
}

// Returns {text, size} for each character; size is its bytes. What is cut off, or is not UTF-8, has a text of its own.
export function charactersOf(bytes) {
  const characters = [];
  for (let at = 0; at < bytes.length; at += characters.at(-1).size) characters.push(characterAt(bytes, at));
  return characters;
}

function characterAt(bytes, at) {
  const size = sizeOfCharacter(bytes[at]);
  const text = at + size <= bytes.length ? decodeUtf8(Uint8Array.from(bytes.slice(at, at + size))) : null;
  return text === null ? { text: '·', size: 1 } : { text: makeVisible(text), size };
}

// How many bytes a character has in UTF-8 is told by its first one.
function sizeOfCharacter(first) {
  if (first < 0xc0) return 1;
  if (first < 0xe0) return 2;
  return first < 0xf0 ? 3 : 4;
}

// A blank, or a control character, as something that can be seen.
function makeVisible(text) {
  if (text === '\n' || text === '\t') return text === '\n' ? '\\n' : '\\t';
  if (text === ' ') return '␣';
  return /[\p{Cc}\p{Cf}]/u.test(text) ? '·' : text;
}
