// A frame, drawn and explained: the figure, its bytes, a table of its fields, and the code that reads the chosen one.
//
// A field is chosen by pointing at it in the figure or in the table, or by its button there: Tab and the arrow keys lead
// from one to the next. Left out: the figure (frame_figure.js), and where the frames of a line come from (frames.js).

import { charactersOf, makeByteTable } from './byte_table.js';
import { makeButton, makeElement, makeText } from './elements.js';
import { SHOWN_BYTES, fieldsOf, isMasked, wireBytes } from './frame_fields.js';
import { drawFigure } from './frame_figure.js';
import { decodeHex } from './hex.js';
import { setText } from './language.js';
import { findPassages, showPassage } from './parser_lines.js';

const CLOSE = 8; // the opcode
const CONTEXT = 40; // px of the code above the first line that reads the field, where this has to be scrolled
const CODE_SIZE = 2; // bytes of a close code

export function makeFrameView(frame) {
  const fields = fieldsOf(frame);
  const view = makeElement('div', 'frame');
  const code = makeElement('div', 'reads');
  const leftOut = Math.max(0, frame.length - SHOWN_BYTES);
  const table = makeFieldTable(fields);
  view.append(makeTitle(frame), drawFigure(fields, leftOut), ...makeBytes(frame), table, ...makeNotes(frame), code);
  letChoose(view, fields, code);
  return view;
}

function makeTitle({ from, fragment, fin }) {
  const title = makeText('p', 'title', { key: from === 'client' ? 'frameOfClient' : 'frameOfServer' });
  if (fragment === null || (fragment === 1 && fin)) return title;
  const parts = makeElement('div', '');
  parts.append(title, makeText('p', 'note', { key: 'fragment', n: fragment }));
  return parts;
}

function makeNotes({ isTold }) {
  return [makeText('p', 'note', { key: isTold === false ? 'frameNotTold' : 'framesNotTold' })];
}

// The bytes

function makeBytes(frame) {
  const parts = [];
  if (frame.length > 0) parts.push(makeByteTable(captionOf('payloadBytes', frame.length), rowsOfPayload(frame)));
  if (frame.inflated !== null && frame.inflated_length > 0) {
    parts.push(makeByteTable(captionOf('inflatedBytes', frame.inflated_length), rowsOfData('bytesInflated', frame.inflated)));
  }
  return parts;
}

function captionOf(key, size) {
  return size > SHOWN_BYTES ? { key: `${key}Cut`, n: size, shown: SHOWN_BYTES } : { key, n: size };
}

function rowsOfPayload(frame) {
  const rows = rowsOfData('bytesPayload', frame.payload, frame);
  if (!isMasked(frame)) return rows;
  const onWire = wireBytes(frame);
  const key = frame.masking_key === null ? [null] : [...decodeHex(frame.masking_key)];
  const keys = onWire.map((_, index) => key[index % key.length]);
  return [{ name: 'bytesWire', bytes: onWire }, { name: 'bytesKey', bytes: keys }, ...rows];
}

// The bytes, and the characters that they are, if they are text.
function rowsOfData(name, digits, frame = { opcode: 0, inflated: null }) {
  const bytes = [...decodeHex(digits).slice(0, SHOWN_BYTES)];
  const rows = [{ name, bytes }];
  if (frame.inflated !== null) return rows; // it is compressed here
  const code = frame.opcode === CLOSE ? [{ text: String(frame.close?.code), size: CODE_SIZE }] : [];
  const characters = [...code, ...charactersOf(bytes.slice(code.length * CODE_SIZE))];
  return [...rows, { name: 'bytesCharacters', characters }];
}

// The fields

function makeFieldTable(fields) {
  const table = makeElement('table', 'fields');
  const head = document.createElement('thead');
  const titles = document.createElement('tr');
  titles.append(...['field', 'value', 'meaning'].map((key) => makeHead(key)));
  head.append(titles);
  const body = document.createElement('tbody');
  body.append(...fields.map(makeFieldRow));
  table.append(makeText('caption', 'visually-hidden', { key: 'fields' }), head, body);
  return table;
}

function makeHead(key) {
  const cell = makeText('th', '', { key });
  cell.scope = 'col';
  return cell;
}

function makeFieldRow(field) {
  const row = document.createElement('tr');
  row.dataset.field = field.name;
  const head = makeElement('th', '');
  head.scope = 'row';
  const button = makeButton('choose', () => {});
  setText(button, `field_${field.name}`);
  head.append(button, ' ', makePlace(field));
  const value = makeElement('td', 'code value', field.value);
  row.append(head, value, makeText('td', 'note', field.meaning));
  return row;
}

function makePlace({ begin, size, section }) {
  if (begin === undefined) return makeText('span', 'note place', { key: 'placeNone', section });
  const last = begin + size - 1;
  const key = last === begin ? 'placeBit' : 'placeBits';
  return makeText('span', 'note place', { key, begin: String(begin), last: String(last), section });
}

// Choosing

function letChoose(view, fields, code) {
  const choose = ({ type, target, movementX, movementY }) => {
    // What lies under a pointer at rest changes when the log is scrolled, too; that is no choice.
    if (type === 'pointermove' && !movementX && !movementY) return;
    const name = target.closest('[data-field]')?.dataset.field;
    if (name && name !== view.dataset.chosen) showChosen(view, fields.find((field) => field.name === name), code);
  };
  for (const type of ['pointermove', 'focusin', 'click']) view.addEventListener(type, choose);
  view.addEventListener('keydown', (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (!step || !event.target.matches('.choose')) return;
    event.preventDefault();
    const buttons = [...view.querySelectorAll('.choose')];
    buttons[buttons.indexOf(event.target) + step]?.focus();
  });
  showChosen(view, fields[0], code);
}

async function showChosen(view, field, code) {
  view.dataset.chosen = field.name;
  for (const part of view.querySelectorAll('[data-field]')) {
    part.classList.toggle('chosen', part.dataset.field === field.name);
  }
  for (const row of view.querySelectorAll('tr[data-field]')) {
    row.querySelector('.choose').ariaPressed = String(row.dataset.field === field.name);
  }
  const passages = await findPassages(field.lines);
  if (view.dataset.chosen !== field.name) return; // another was chosen meanwhile
  const title = makeElement('p', 'reads-title');
  title.append(makeText('b', '', { key: `field_${field.name}` }), ' ', makePlace(field));
  title.append(' ', makeText('span', 'note', field.meaning));
  code.replaceChildren(title, ...passages.flatMap(showPassage));
  revealFirst(code, title.offsetHeight);
}

// Scrolls to the first line that reads the field, if it is not in sight.
function revealFirst(code, titleHeight) {
  code.scrollTop = 0;
  const first = code.querySelector('mark');
  const end = first ? first.offsetTop + first.offsetHeight : 0;
  if (end > code.clientHeight) code.scrollTop = first.offsetTop - titleHeight - CONTEXT;
}
