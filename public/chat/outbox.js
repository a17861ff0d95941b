// What was said and has not come back from the server yet, in the order of saying.
//
// It is kept on the device, so that a reload, a crash or a closed tab loses none of it: each message in a
// record of its own, which is written once and deleted once, so that tabs need not agree on anything. Whoever
// joins with the same email and name, in whichever tab, takes up what waits. Should two tabs send the same
// message, it has the same key, and the server shows it once.

import { deviceStorage } from './storage.js';

const RECORD = 'unsent/'; // and the message's key
const MOST_MESSAGES = 100;
const MOST_CHARACTERS = 1_000_000; // in all; browsers keep some five million for a whole site
const FRESH = 3_600_000; // ms; what has waited longer is sent only if its author still wants it
const FORGOTTEN = 7 * 24 * FRESH; // ms; what has waited longer is of no use to anybody

export class Outbox {
  #person;
  #waiting = new Map(); // key → message {email, username, message, key, said, kept, losses}
  #givenUp = new Map(); // the same, for messages that are not sent until their author asks for it
  #said = 0; // ms since 1970; no two messages have the same, so that their order can be restored

  constructor(person) {
    this.#person = person;
    const own = recorded().filter((each) => each.email === person.email && each.username === person.username);
    for (const message of own.slice(-MOST_MESSAGES)) this.#take(message);
  }

  #take(message) {
    const fresh = Date.now() - message.said <= FRESH;
    (fresh ? this.#waiting : this.#givenUp).set(message.key, { ...message, kept: true, losses: 0 });
    this.#said = Math.max(this.#said, message.said);
  }

  // Messages to be sent, the oldest first.
  [Symbol.iterator]() {
    return this.#waiting.values();
  }

  get givenUp() {
    return this.#givenUp.values();
  }

  get oldest() {
    return this.#waiting.values().next().value;
  }

  // Whether closing the page would lose something.
  get isAtRisk() {
    return [...this.#waiting.values()].some(({ kept }) => !kept);
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
    this.#waiting.set(message.key, { ...message, kept, losses: 0 });
    return message;
  }

  // The server has it, or will never take it. Tells whether it was here.
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

  // Its author wants it sent all the same. The message, or undefined where it is not given up.
  revive(key) {
    const message = this.#givenUp.get(key);
    if (!this.#givenUp.delete(key)) return undefined;
    this.#waiting.set(key, { ...message, losses: 0 });
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
