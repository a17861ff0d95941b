// The text of a message: addresses in it become links, short names such as :robot: become emoji, and a message
// of only emoji becomes large.
//
// The text is taken apart first, and each part enters the page as text: nothing in a message is ever markup.
// Left out: formatting such as *bold*.

import { replaceShortNames } from './emoji.js';

// What an address cannot contain here, beside spaces: quotation marks and angle brackets around it, full-width
// punctuation after it, and characters that would change the direction of the text.
const NOT_IN_ADDRESS =
  '\\s<>"`“”«»‘’、。，；：！？（）《》【】「」『』\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069';
// After a comma, another address begins.
const ADDRESS = new RegExp(`(?:https?://|mailto:)(?:(?![,;]https?://)[^${NOT_IN_ADDRESS}])+`, 'giu');
const SCHEMES = ['http:', 'https:', 'mailto:'];

// An address whose host ends in a script of its own, such as https://example.org然后: its first group is the
// address. A Chinese text goes on without a space, and no top-level domain begins in ASCII and ends in Chinese.
const GOES_ON = new RegExp(
  '^((?:https?://|mailto:)(?:[^/?#]*[.:@])?[\\da-z-]+)' +
    '[^\\p{ASCII}\\p{Script=Latin}][^.:@/?#]*(?:[/?#]|$)',
  'iu',
);
const PUNCTUATION = '.,;:!?\'*_~…';
const MAX_ADDRESS = 2_000; // characters; longer ones stay text
const MAX_LARGE = 8; // emoji; more than these are no large message
const LETTER_OR_DIGIT = /[\p{L}\p{N}]/u;

// One emoji as people see it: with a skin tone, of several joined ones, a flag, or a key such as 1️⃣. Signs such
// as © are emoji only if they are marked as such.
const ONE_EMOJI =
  '(?:\\p{Regional_Indicator}{2}|[0-9#*]\\uFE0F?\\u20E3|' +
  '(?![©®™](?!\\uFE0F))\\p{Extended_Pictographic}[\\uFE0F\\p{Emoji_Modifier}\\u{E0020}-\\u{E007F}]*' +
  '(?:\\u200D\\p{Extended_Pictographic}[\\uFE0F\\p{Emoji_Modifier}]*)*)';
const ONLY_EMOJI = new RegExp(`^(?:${ONE_EMOJI}\\s*){1,${MAX_LARGE}}$`, 'u');

// Draws the text of a message into an element, which must be empty.
export function drawText(element, text) {
  const shown = [];
  for (const { address, text: piece } of takeApart(text)) {
    const part = address ? makeLink(address, piece) : replaceShortNames(piece);
    element.append(part);
    shown.push(address ? piece : part);
  }
  element.classList.toggle('only-emoji', ONLY_EMOJI.test(shown.join('').trim()));
}

// Returns the parts of a text, in order: {address, text} for a link, and {text} for what is none.
export function takeApart(text) {
  const parts = [];
  let end = 0; // of what was taken apart already
  for (const { 0: found, index } of text.matchAll(ADDRESS)) {
    const address = withoutSurroundings(found);
    const isPartOfWord = index > 0 && LETTER_OR_DIGIT.test(text[index - 1]) && isAscii(text[index - 1]);
    const url = isPartOfWord ? null : parse(address);
    if (url === null) continue;
    if (index > end) parts.push({ text: text.slice(end, index) });
    parts.push({ address: url.href, text: address });
    end = index + address.length;
  }
  if (end < text.length) parts.push({ text: text.slice(end) });
  return parts;
}

// A Chinese text has no space before an address.
function isAscii(character) {
  return character < '\u0080';
}

// Punctuation at the end belongs to the sentence around the address, and so does a bracket that was not opened
// within it, and a Chinese word that follows the host.
function withoutSurroundings(found) {
  const address = GOES_ON.exec(found)?.[1] ?? found;
  const unopened = {
    ')': count(address, ')') - count(address, '('),
    ']': count(address, ']') - count(address, '['),
    '}': count(address, '}') - count(address, '{'),
  };
  let end = address.length;
  while (end > 0) {
    const last = address[end - 1];
    if (unopened[last] > 0) unopened[last] -= 1;
    else if (!PUNCTUATION.includes(last)) break;
    end -= 1;
  }
  return address.slice(0, end);
}

function count(text, character) {
  return text.split(character).length - 1;
}

// Returns the URL, or null where the address is none that may be a link. One with a name before the host is
// not: in https://bank.example@other.example the name is there to be taken for the host.
function parse(address) {
  if (address.length > MAX_ADDRESS) return null;
  let url;
  try {
    url = new URL(address);
  } catch {
    return null;
  }
  const hasTarget = url.protocol === 'mailto:' ? url.pathname.includes('@') : url.hostname !== '';
  const hasName = url.username !== '' || url.password !== '';
  return SCHEMES.includes(url.protocol) && hasTarget && !hasName ? url : null;
}

// The title is the address as the browser reads it, which shows whether its letters are what they seem to be.
function makeLink(address, text) {
  const link = document.createElement('a');
  link.href = address;
  link.textContent = text;
  link.title = address;
  link.target = '_blank';
  link.rel = 'noopener noreferrer nofollow';
  return link;
}
