// Bytes as hexadecimal digits, in and out. Left out: where they are shown (composer.js, line.js, frame_figure.js).

const encoder = new TextEncoder();
const SEPARATORS = /[\s,;:_-]+/;

// Returns {bytes}, or {error} where the text is not hexadecimal, as a text to translate. Bytes may stand together
// or apart, and may have 0x before them: 48656c, 48 65 6C, 0x48,0x65.
export function parseHex(text) {
  const digits = [];
  for (const written of text.split(SEPARATORS)) {
    const part = written.replace(/^0x/i, '');
    const [wrong] = part.match(/[^0-9a-f]/iu) ?? [];
    if (wrong) return { error: { key: 'hexWrong', found: wrong } };
    if (part.length % 2 || (written && !part)) return { error: { key: 'hexOdd', found: shorten(written) } };
    digits.push(part);
  }
  return { bytes: decodeHex(digits.join('')) };
}

// Returns the bytes of a text as digits without anything between them, as the server tells bytes.
export function encodeHex(text) {
  return formatHex(encodeUtf8(text)).replaceAll(' ', '');
}

// Returns the bytes that such digits stand for.
export function decodeHex(digits) {
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

export function encodeUtf8(text) {
  return encoder.encode(text);
}

export function formatHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
}

// Returns the bytes as text, or null where they are not UTF-8.
export function decodeUtf8(bytes) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

function shorten(text) {
  return text.length <= 12 ? text : `${text.slice(0, 11)}…`;
}
