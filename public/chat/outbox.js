// What was said and has not come back from the server yet, in the order of saying.
//
// It is kept on the device, so that a reload, a crash or a closed tab loses none of it. Each message has a
// record of its own, which changes only when the server refuses the message, so that tabs need not agree on
// anything. Whoever joins with the same email and name, in whichever tab, takes up what waits. Should two
// tabs send the same message, it has the same key, and the server shows it once.

import { deviceStorage } from './storage.js';

const RECORD = 'unsent/'; // and the message's key
const MOST_MESSAGES = 100;
const MOST_CHARACTERS = 1_000_000; // in all; browsers keep some five million for a whole site
// What has waited longer is sent only if its author still wants it. Servers on Redis know a key for an hour
// and would show a message twice that comes again after that, so this is somewhat less.
const FRESH = 3_000_000; // ms
const FORGOTTEN = 7 * 24 * 3_600_000; // ms; what has waited longer is of no use to anybody

export const TOO_OLD = 'it waited for long'; // why a message that is no more fresh was not sent

export class Outbox {
  #person;
  #waiting = new Map(); // key → message {email, username, message, key, said, wanted, kept, losses}
  #givenUp = new Map(); // the same, for messages that are not sent unless their author asks for it
  // When the newest message was said, in ms since 1970. Each further one of this tab gets a later time, also
  // two within one millisecond, so that a page which is loaded again finds them in the order of saying.
  #said = 0;

  constructor(person) {
    this.#person = person;
    const own = recorded().filter((each) => each.email === person.email && each.username === person.username);
    for (const message of own.slice(-MOST_MESSAGES)) this.#take(message);
  }

  #take(message) {
    const whole = { ...message, wanted: message.said, kept: true, losses: 0 };
    const isOver = message.refused !== undefined || this.isStale(whole);
    (isOver ? this.#givenUp : this.#waiting).set(message.key, whole);
    this.#said = Math.max(this.#said, message.said);
  }

  // Whether it has waited for so long that its author is to be asked, see FRESH.
  isStale({ wanted }) {
    return Date.now() - wanted > FRESH;
  }

  // Messages to be sent, the oldest first.
  [Symbol.iterator]() {
    return this.#waiting.values();
  }

  get givenUp() {
    return this.#givenUp.values();
  }

  // Whether closing the page would lose something.
  get isAtRisk() {
    return [...this.#waiting.values(), ...this.#givenUp.values()].some(({ kept }) => !kept);
  }

  // The message made of the text, or null where too much waits already.
  add(text) {
    let characters = text.length;
    for (const { message } of this) characters += message.length;
    const isFull = this.#waiting.size >= MOST_MESSAGES || characters > MOST_CHARACTERS;
    if (isFull && this.#waiting.size > 0) return null;
    this.#said = Math.max(Date.now(), this.#said + 1);
    const message = { ...this.#person, message: text, key: randomKey(), said: this.#said };
    const kept = deviceStorage.set(RECORD + message.key, message);
    this.#waiting.set(message.key, { ...message, wanted: message.said, kept, losses: 0 });
    return message;
  }

  // The server has it. Tells whether it was here.
  delete(key) {
    if (!this.#waiting.delete(key) && !this.#givenUp.delete(key)) return false;
    deviceStorage.delete(RECORD + key);
    return true;
  }

  // It stays on the device: a page that is loaded again tries again.
  giveUp(key) {
    this.#givenUp.set(key, this.#waiting.get(key));
    this.#waiting.delete(key);
  }

  // The server will never take it. It stays on the device until its author discards it, with the reason;
  // where another tab has deleted the record meanwhile, that stays so.
  refuse(key, reason) {
    this.giveUp(key);
    const record = deviceStorage.get(RECORD + key);
    if (isMessage(record)) deviceStorage.set(RECORD + key, { ...record, refused: reason });
  }

  // Its author does not want it sent any more. The message, or undefined where it is not given up.
  discard(key) {
    const message = this.#givenUp.get(key);
    if (message) this.delete(key);
    return message;
  }

  // Its author wants it sent all the same. The message, or undefined where it is not given up.
  revive(key) {
    const message = this.#givenUp.get(key);
    if (!this.#givenUp.delete(key)) return undefined;
    this.#waiting.set(key, { ...message, wanted: Date.now(), losses: 0 });
    return message;
  }
}

// All that is on the device, the oldest first; what is of no use there is deleted.
function recorded() {
  const messages = [];
  for (const name of deviceStorage.names(RECORD)) {
    const message = deviceStorage.get(name);
    if (isMessage(message) && Date.now() - message.said <= FORGOTTEN) messages.push(message);
    else deviceStorage.delete(name);
  }
  return messages.sort((one, other) => one.said - other.said);
}

function isMessage(record) {
  return (
    ['email', 'username', 'message', 'key'].every((name) => typeof record?.[name] === 'string') &&
    typeof record.said === 'number'
  );
}

// Not crypto.randomUUID, which browsers hide on plain http.
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join('-');
}
