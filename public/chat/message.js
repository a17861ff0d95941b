// A message as the server sends and receives it, in JSON, and its id.
//
// An id has the form of a Redis Stream ID: milliseconds since 1970, a hyphen, and a number that tells
// messages of one millisecond apart. Left out: events, which connection.js reads, and how a message looks
// (message_list.js).

const ID = /^\d{1,19}(-\d{1,19})?$/; // what a server accepts as `since`
const YEAR_10000 = Date.UTC(10_000); // ms; a later time is somebody's mistake and cannot be shown

// Returns the text that goes over the wire. The server measures its limit on this text.
export function encodeMessage({ email, username, message, key }) {
  return JSON.stringify({ email, username, message, key });
}

// Returns a message all of whose fields are strings, whatever the server sent.
export function decodeMessage({ id, key, email, username, message, avatar }) {
  const fields = Object.entries({ id, key, email, username, message, avatar });
  return Object.fromEntries(fields.map(([name, value]) => [name, toText(value)]));
}

export function toText(value) {
  if (typeof value === 'string') return value;
  return value === undefined || value === null ? '' : JSON.stringify(value);
}

// Returns whether the value is an id that a server accepts as `since`.
export function isId(value) {
  return typeof value === 'string' && ID.test(value);
}

// Returns whether an id comes after another. Its parts can be too big for JavaScript's numbers.
export function isLater(id, other) {
  const [time, sequence = 0n] = id.split('-').map(BigInt);
  const [otherTime, otherSequence = 0n] = other.split('-').map(BigInt);
  return time === otherTime ? sequence > otherSequence : time > otherTime;
}

// Returns the Date that an id begins with, or null where that is no time.
export function timeOf(id) {
  const milliseconds = parseInt(id, 10);
  return milliseconds >= 0 && milliseconds < YEAR_10000 ? new Date(milliseconds) : null;
}
