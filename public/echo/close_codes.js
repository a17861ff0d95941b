// What a close code says, in words (RFC 6455, 7.4). Left out: the words themselves (texts.js).

// Those with a meaning of their own. 7.4.1 defines them up to 1011 and 1015; 1012-1014 were registered later.
export const KNOWN_CODES = [
  1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015,
];
// 7.4.1: these never travel in a frame; they are how an endpoint tells its own program what has happened.
const NEVER_SENT = [1005, 1006, 1015];
const MAX_REASON = 123; // bytes; with the two of the code they fill a control frame (5.5)

// Returns the keys of two texts: the name of a code, and what it means.
export function describeCode(code) {
  if (KNOWN_CODES.includes(code)) return { name: `name${code}`, meaning: `meaning${code}` };
  const group = groupOf(code);
  return { name: `name${group}`, meaning: `meaning${group}` };
}

// 7.4.2: who may give a code its meaning.
function groupOf(code) {
  if (code >= 1000 && code <= 2999) return 'Reserved';
  if (code >= 3000 && code <= 3999) return 'Registered';
  return code >= 4000 && code <= 4999 ? 'Private' : 'Invalid';
}

// Those that a server may send: 1010 is for clients, which miss an extension.
export const SENT_BY_SERVERS = KNOWN_CODES.filter((code) => !NEVER_SENT.includes(code) && code !== 1010);

// Returns why a script may not close with this, as a text to translate, or null where it may. The browser keeps
// the other codes to itself. Code null stands for none: a Close frame may be empty.
export function refuseFromPage(code, reasonSize) {
  if (code === null) return reasonSize > 0 ? { key: 'reasonNeedsCode' } : null;
  if (code !== 1000 && !(code >= 3000 && code <= 4999)) return { key: 'codeNotForPages', found: String(code) };
  return reasonSize > MAX_REASON ? { key: 'reasonTooLong', n: reasonSize } : null;
}
