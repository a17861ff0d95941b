// What the server sends and receives, in JSON: messages, events, and the ids of messages.
//
// An id has the form of a Redis Stream ID: milliseconds since 1970, a hyphen, and a number that tells
// messages of one millisecond apart. Left out: what follows from an event (connection.js), and how a message looks
// (message_item.js).

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

// Returns the answer to a request for older messages. What is no message in it is left out.
export function decodeOlder({ before, messages, more, failed }) {
  const list = Array.isArray(messages) ? messages : [];
  const decoded = list.filter((each) => each && typeof each === 'object').map(decodeMessage);
  return { before: toText(before), messages: decoded, more: more === true, failed: failed === true };
}

// Returns who is online: how many, and {username, avatar} of some.
export function decodeOnline({ count, people }) {
  const list = Array.isArray(people) ? people : [];
  const known = list.filter((each) => each && typeof each === 'object');
  const decoded = known.map(({ username, avatar }) => ({ username: toText(username), avatar: toText(avatar) }));
  return { count: Number.isInteger(count) ? count : decoded.length, people: decoded };
}

function toText(value) {
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
