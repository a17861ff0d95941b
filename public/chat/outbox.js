// The outbox: messages that the user has sent and the server has not acknowledged yet, in the order of
// sending.
//
// Each is stored on the device, so that a reload, a crash or a closed tab loses none of them. Each has a
// record of its own there, which changes only when the server refuses the message, so that several tabs need
// not coordinate. A page takes over all stored messages whose email and username are those of the person who
// joins. If two tabs send the same message, both send it with the same key, and the server shows it once.
//
// Left out: the sending itself, and the decision that a message has failed (see connection.js).

import { deviceStorage } from './storage.js';

const RECORD_PREFIX = 'unsent/'; // followed by the message's key
const MAX_MESSAGES = 100;
const MAX_CHARACTERS = 1_000_000; // in total; browsers store about five million for a whole site
// An older message is sent only if its author asks for it again. A server with Redis remembers a key for an
// hour (less where more than 139 messages come each second), and would show a message that is sent again
// later than that a second time, so this is less than an hour.
const MAX_AGE_TO_SEND = 50 * 60_000; // ms
const MAX_AGE_TO_KEEP = 7 * 24 * 3_600_000; // ms; an older message is of no use to anybody

export const KEY_LENGTH = 31; // characters of any message's key

export const TOO_OLD = { key: 'tooOld' }; // why a message past MAX_AGE_TO_SEND was not sent

// A message in the outbox has the fields that are sent (email, username, message, key), and:
// - said: when its author wrote it, in ms since 1970. It gives the order of the messages.
// - wantedAt: when its author last asked for it to be sent, in ms since 1970.
// - isStored: whether the device has a record of it.
// - breaks: how many connections broke while it may have been the reason.
// - refused: why the server refused it, if it did: a text, or what translate makes one of.
export class Outbox {
  #person;
  #waiting = new Map(); // key → message that is to be sent
  #failed = new Map(); // key → message that is not sent unless its author asks for it
  #newestSaid = 0; // the latest `said` of all messages

  // Takes the messages over that an earlier page of this person, {email, username}, stored.
  constructor(person) {
    this.#person = person;
    const own = readRecords().filter(
      ({ email, username }) => email === person.email && username === person.username,
    );
    for (const record of own.slice(-MAX_MESSAGES)) this.#takeOver(record);
  }

  #takeOver(record) {
    const message = { ...record, wantedAt: record.said, isStored: true, breaks: 0 };
    const hasFailed = message.refused !== undefined || this.isStale(message);
    const messages = hasFailed ? this.#failed : this.#waiting;
    messages.set(message.key, message);
    this.#newestSaid = Math.max(this.#newestSaid, message.said);
  }

  // Returns whether the message has waited for so long that its author is to be asked, see MAX_AGE_TO_SEND.
  isStale({ wantedAt }) {
    return Date.now() - wantedAt > MAX_AGE_TO_SEND;
  }

  // Iterates over the messages that are to be sent, the oldest first.
  [Symbol.iterator]() {
    return this.#waiting.values();
  }

  get isEmpty() {
    return this.#waiting.size === 0;
  }

  get failed() {
    return this.#failed.values();
  }

  // Returns whether closing the page would lose a message.
  get isAtRisk() {
    const messages = [...this.#waiting.values(), ...this.#failed.values()];
    return messages.some(({ isStored }) => !isStored);
  }

  // Makes a message of the text and returns it, or null where too much is waiting already.
  add(text) {
    if (!this.#hasRoomFor(text)) return null;
    // Two messages of one millisecond get different times, so that a page which is loaded again finds them in
    // the order in which they were written.
    this.#newestSaid = Math.max(Date.now(), this.#newestSaid + 1);
    const message = { ...this.#person, message: text, key: randomKey(), said: this.#newestSaid };
    const isStored = deviceStorage.set(RECORD_PREFIX + message.key, message);
    this.#waiting.set(message.key, { ...message, wantedAt: message.said, isStored, breaks: 0 });
    return message;
  }

  // A text of any length has room where nothing else is waiting.
  #hasRoomFor(text) {
    if (this.#waiting.size === 0) return true;
    let characters = text.length;
    for (const { message } of this) characters += message.length;
    return this.#waiting.size < MAX_MESSAGES && characters <= MAX_CHARACTERS;
  }

  // Removes a message, because the server has acknowledged it. Returns whether it was in the outbox.
  remove(key) {
    const wasHere = this.#waiting.delete(key) || this.#failed.delete(key);
    if (wasHere) deviceStorage.delete(RECORD_PREFIX + key);
    return wasHere;
  }

  // Stops sending a message. Its record stays, so a page that is loaded again tries to send it again.
  giveUp(key) {
    this.#failed.set(key, this.#waiting.get(key));
    this.#waiting.delete(key);
  }

  // Stops sending a message because the server refuses it. Its record stays until its author discards it, and
  // gets the reason. If another tab has deleted the record meanwhile, it stays deleted.
  refuse(key, reason) {
    this.giveUp(key);
    const record = deviceStorage.get(RECORD_PREFIX + key);
    if (isRecord(record)) deviceStorage.set(RECORD_PREFIX + key, { ...record, refused: reason });
  }

  // Removes a failed message, because its author does not want it any more. Returns it, or undefined where no
  // such message has failed.
  discard(key) {
    const message = this.#failed.get(key);
    if (message) this.remove(key);
    return message;
  }

  // Puts a failed message back among those to be sent. Returns it, or undefined where no such message has
  // failed.
  retry(key) {
    const message = this.#failed.get(key);
    if (!this.#failed.delete(key)) return undefined;
    this.#waiting.set(key, { ...message, wantedAt: Date.now(), breaks: 0 });
    return message;
  }
}

// Deletes all messages of anybody from the device.
export function forgetOutbox() {
  for (const name of deviceStorage.names(RECORD_PREFIX)) deviceStorage.delete(name);
}

// Returns the messages on the device, the oldest first. Deletes records that are damaged or too old.
function readRecords() {
  const records = [];
  for (const name of deviceStorage.names(RECORD_PREFIX)) {
    const record = deviceStorage.get(name);
    if (isRecord(record) && Date.now() - record.said <= MAX_AGE_TO_KEEP) records.push(record);
    else deviceStorage.delete(name);
  }
  return records.sort((one, other) => one.said - other.said);
}

function isRecord(value) {
  const texts = ['email', 'username', 'message', 'key'];
  return texts.every((name) => typeof value?.[name] === 'string') && typeof value.said === 'number';
}

// Returns a key of KEY_LENGTH. Not crypto.randomUUID, which browsers hide on plain http.
function randomKey() {
  const numbers = crypto.getRandomValues(new Uint32Array(4));
  return Array.from(numbers, (number) => number.toString(36).padStart(7, '0')).join('-');
}
