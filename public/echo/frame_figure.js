// A frame as the figure of RFC 6455, 5.2, filled with its bits: a grid of 32 columns, of 16 on a narrow screen (echo.css).
//
// The grid is for the eyes, and hidden from screen readers; the table of fields (frame_view.js) says the same. Left out:
// which fields there are (frame_fields.js).

import { makeElement, makeText } from './elements.js';

const COLUMNS = 32;
const BYTE = 8; // bits

// Returns the figure. Its cells have the names of their fields as `data-field`.
export function drawFigure(fields, bytesLeftOut) {
  const figure = makeElement('div', 'bits');
  figure.ariaHidden = 'true';
  figure.append(...Array.from({ length: COLUMNS }, (_, column) => makeElement('span', 'ruler', String(column))));
  for (const field of fields) if (field.bits !== undefined) figure.append(...drawField(field));
  if (bytesLeftOut > 0) figure.append(makeText('p', 'left-out', { key: 'bytesLeftOut', n: bytesLeftOut }));
  return figure;
}

function drawField(field) {
  const cells = Array.from(field.bits, (bit, index) => drawBit(field, bit, index));
  cells[0].classList.add('begins');
  cells[0].prepend(drawName(field));
  return cells;
}

function drawBit({ name, bits, begin }, bit, index) {
  const cell = makeElement('span', 'bit');
  cell.dataset.field = name;
  cell.append(makeElement('span', 'digit', bit));
  const isWhole = bits.length % BYTE === 0 && begin % BYTE === 0;
  if (isWhole && index % BYTE === 0) {
    cell.classList.add('begins-byte');
    cell.append(makeElement('span', 'byte code', toHex(bits.slice(index, index + BYTE))));
  }
  return cell;
}

// A single bit has the name that the RFC gives it, from top to bottom as there.
function drawName({ name, bits }) {
  if (bits.length === 1) return makeElement('span', 'name upright', name.toUpperCase());
  return makeText('span', 'name', { key: `field_${name}` });
}

function toHex(bits) {
  return bits.includes('?') ? '??' : parseInt(bits, 2).toString(16).padStart(2, '0');
}
