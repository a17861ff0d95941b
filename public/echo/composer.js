// The field in which a message is written, as text or as hexadecimal digits. Enter sends it.
//
// Whoever changes between the two keeps what was written, wherever the other can say the same. Left out: where the
// message goes (echo.js).

import { setPlainText, setText } from './language.js';
import { decodeUtf8, encodeUtf8, formatHex, parseHex } from './hex.js';
import { grow, submitOnEnter } from './text_field.js';
import { sizeOf } from './wire.js';

const byId = (id) => document.getElementById(id);
const form = byId('send');
const field = byId('message');
const kinds = byId('kind');
let kind = 'text';

// `send(data)` gets a string or a Uint8Array.
export function prepareComposer(send) {
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    submit(send);
  });
  submitOnEnter(field);
  field.addEventListener('input', update);
  kinds.addEventListener('change', ({ target }) => changeKind(target.value));
  kinds.querySelector(`[value=${kind}]`).checked = true; // a browser may bring an earlier choice back
  update();
}

export function focusComposer() {
  field.focus();
}

// Returns what is written as {data}, or as {error}, a text to translate.
function read() {
  if (kind === 'text') return { data: field.value };
  const { bytes, error } = parseHex(field.value);
  return { data: bytes, error };
}

function submit(send) {
  const { data, error } = read();
  field.ariaInvalid = String(error !== undefined);
  field.focus();
  if (error) {
    setText(byId('send-error'), error.key, error);
    return;
  }
  setPlainText(byId('send-error'), '');
  field.select(); // so that the next one can be written at once, and the same one be sent again
  send(data);
}

function changeKind(wanted) {
  const { data, error } = read();
  kind = wanted;
  if (!error) {
    const text = kind === 'text' ? decodeUtf8(data) : formatHex(encodeUtf8(data));
    if (text !== null) field.value = text;
  }
  update();
}

// An error that was told goes as soon as something is done about it.
function update() {
  const { data, error } = read();
  field.classList.toggle('code', kind === 'binary');
  setText(byId('hint'), kind === 'text' ? 'hintText' : 'hintHex');
  setPlainText(byId('send-error'), '');
  field.ariaInvalid = 'false';
  if (error) setPlainText(byId('size'), '');
  else setText(byId('size'), 'bytes', { n: sizeOf(data) });
  grow(field);
}
