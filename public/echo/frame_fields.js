// The fields of a frame in the order of RFC 6455, 5.2: each with its bits, its value, and what it means here.
//
// A frame is what the server's parser found in it, see playground/frame_events.py, or what the page knows of it (close_frame.js).
// Left out: how it is drawn (frame_figure.js).

import { describeCode } from './close_codes.js';
import { decodeHex, formatHex } from './hex.js';

export const SHOWN_BYTES = 24; // of a payload
const VALUE_BYTES = 8; // of a payload, in the table of fields
const BYTE = 8; // bits
const UNKNOWN = '?';
const FIRST_CONTROL = 8; // of the opcodes (5.5)
const CONTINUATION = 0;
const CLOSE = 8;
const LENGTH_16 = 126; // as a payload length: the real one follows in 16 bits
const LENGTH_64 = 127;

// Returns the fields in order. Of each:
// - name: it stands in texts.js as `field_…`, and the lines that read it stand under `lines` in the server's answer.
// - section: of RFC 6455, if no other is named.
// - bits: as a text of 0, 1 and ?, as far as they are drawn; undefined for what is no part of the frame as it travels.
// - begin, size: the place of all of its bits in the frame.
// - value, meaning: the value as it is, and a text to translate.
export function fieldsOf(frame) {
  const fields = [...fieldsOfHeader(frame), ...fieldsOfPayload(frame)];
  let begin = 0;
  for (const field of fields) {
    if (field.bits === undefined) continue;
    field.begin = begin;
    field.size ??= field.bits.length;
    begin += field.size;
  }
  return fields;
}

// Whether the payload travels masked.
export function isMasked(frame) {
  return frame.masked && frame.length > 0;
}

// The bytes that are drawn; null for those that nobody knows.
export function wireBytes(frame) {
  if (frame.wire_payload === null) return Array(Math.min(frame.length, SHOWN_BYTES)).fill(null);
  return [...decodeHex(frame.wire_payload).slice(0, SHOWN_BYTES)];
}

// The header

function fieldsOfHeader(frame) {
  const fields = [fin(frame), ...reserved(frame), opcode(frame), mask(frame), payloadLength(frame)];
  if (frame.extended_length) fields.push(extendedLength(frame));
  if (frame.masked) fields.push(maskingKey(frame));
  return fields;
}

function fin(frame) {
  return bitField('fin', 'fin', '5.2, 5.4', frame.fin, meaningOfFin(frame));
}

function meaningOfFin({ fin: isLast, opcode: number, fragment }) {
  if (number >= FIRST_CONTROL) return { key: 'fin_control' };
  if (!isLast) return { key: 'fin_more' };
  return { key: number === CONTINUATION || fragment > 1 ? 'fin_last' : 'fin_only' };
}

function reserved({ rsv, opcode: number, inflated: found }) {
  const unset = found === null ? 'rsv1_unset' : 'rsv1_first';
  const key = number >= FIRST_CONTROL ? 'rsv_unset' : unset;
  return [
    bitField('rsv1', 'rsv', '5.2, RFC 7692: 6', rsv & 4, { key: rsv & 4 ? 'rsv1_set' : key }),
    bitField('rsv2', 'rsv', '5.2', rsv & 2, { key: 'rsv_unset' }),
    bitField('rsv3', 'rsv', '5.2', rsv & 1, { key: 'rsv_unset' }),
  ];
}

function opcode({ opcode: number }) {
  const bits = toBits(number, 4);
  const meaning = { key: `opcode_${number}` }; // a frame with another one is never told
  const section = number >= FIRST_CONTROL ? '5.2, 5.5' : '5.2, 5.6';
  return { name: 'opcode', lines: 'opcode', section, bits, value: `${bits} = 0x${number.toString(16)}`, meaning };
}

function mask(frame) {
  return bitField('mask', 'mask', '5.2, 5.1', frame.masked, { key: frame.masked ? 'mask_set' : 'mask_unset' });
}

function payloadLength({ short_length: number }) {
  const bits = toBits(number, 7);
  const long = { [LENGTH_16]: 'length_16', [LENGTH_64]: 'length_64' }[number];
  const meaning = { key: long ?? 'length_7', n: number };
  return { name: 'length', lines: 'length', section: '5.2', bits, value: `${bits} = ${number}`, meaning };
}

function extendedLength({ extended_length: digits, length }) {
  const bytes = decodeHex(digits);
  const meaning = { key: 'extended', n: length };
  const value = `${formatHex(bytes)} = ${length}`;
  return { name: 'extended', lines: 'extended_length', section: '5.2', bits: bitsOf(bytes), value, meaning };
}

function maskingKey({ masking_key: digits }) {
  const field = { name: 'key', lines: 'masking_key', section: '5.2, 5.3' };
  if (digits === null) return { ...field, bits: UNKNOWN.repeat(32), value: UNKNOWN, meaning: { key: 'key_unknown' } };
  const bytes = decodeHex(digits);
  return { ...field, bits: bitsOf(bytes), value: formatHex(bytes), meaning: { key: 'key_known' } };
}

// The payload

function fieldsOfPayload(frame) {
  const fields = frame.opcode === CLOSE ? fieldsOfClose(frame) : fieldsOfData(frame);
  if (isMasked(frame) && frame.opcode !== CLOSE) fields.push(unmasked(frame));
  if (frame.inflated !== null) fields.push(inflated(frame));
  return fields;
}

function fieldsOfData(frame) {
  if (frame.length === 0) return [];
  return [{
    name: 'payload',
    lines: 'payload',
    section: frame.masked ? '5.2, 5.3' : '5.2',
    bits: bitsOf(wireBytes(frame)),
    size: frame.length * BYTE,
    value: beginning(frame.wire_payload, frame.length),
    meaning: { key: frame.masked ? 'payload_masked' : meaningOfData(frame), n: frame.length },
  }];
}

function unmasked(frame) {
  const value = beginning(frame.payload, frame.length);
  const meaning = { key: meaningOfData(frame), n: frame.length };
  return { name: 'unmasked', lines: 'unmasked', section: '5.3', value, meaning };
}

// What the bytes of a payload are, once they are not masked any more.
function meaningOfData({ opcode: number, is_text: isText, inflated: found }) {
  if (number >= FIRST_CONTROL) return 'data_control';
  if (found !== null) return 'data_compressed';
  return isText ? 'data_text' : 'data_binary';
}

function inflated({ inflated: digits, inflated_length: size, is_text: isText }) {
  const meaning = { key: isText ? 'inflated_text' : 'inflated_binary', n: size };
  const value = beginning(digits, size);
  return { name: 'inflated', lines: 'inflated', section: 'RFC 7692: 7.2.2', value, meaning };
}

// A Close carries a code of two bytes and a reason, or nothing.
function fieldsOfClose(frame) {
  if (frame.length < 2 || frame.close === null) return [];
  const bytes = decodeHex(frame.payload);
  const onWire = wireBytes(frame);
  const { code } = frame.close;
  const { name, meaning } = describeCode(code);
  const fields = [{
    name: 'code',
    lines: 'close_code',
    section: '5.5.1, 7.4',
    bits: bitsOf(onWire.slice(0, 2)),
    value: `${formatHex(bytes.slice(0, 2))} = ${code}`,
    meaning: { key: 'nameAndMeaning', name: { key: name }, meaning: { key: meaning } },
  }];
  if (frame.length === 2) return fields;
  return [...fields, {
    name: 'reason',
    lines: 'close_reason',
    section: '5.5.1, 7.1.6',
    bits: bitsOf(onWire.slice(2)),
    size: (frame.length - 2) * BYTE,
    value: beginning(frame.payload.slice(4), frame.length - 2),
    meaning: { key: 'reason_meaning', reason: frame.close.reason },
  }];
}

// Bits and bytes

function bitField(name, lines, section, bit, meaning) {
  const value = bit ? '1' : '0';
  return { name, lines, section, bits: value, value, meaning };
}

function toBits(number, size) {
  return number.toString(2).padStart(size, '0');
}

function bitsOf(bytes) {
  return Array.from(bytes, (byte) => (byte === null ? UNKNOWN.repeat(BYTE) : toBits(byte, BYTE))).join('');
}

// Of so many bytes the first, as digits.
function beginning(digits, size) {
  if (digits === null) return UNKNOWN;
  const shown = decodeHex(digits).slice(0, VALUE_BYTES);
  return formatHex(shown) + (shown.length < size ? ' …' : '');
}
