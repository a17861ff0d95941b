// The messages in flight on one socket: sent on it, and not acknowledged yet.
//
// A message is acknowledged by the server's own copy of it. Long before that, the answer to a ping can show
// that the server has read the message: it answers in order. Left out: the messages themselves. The outbox
// holds them, and this class knows only their keys.

export class InFlight {
  #keys = new Set(); // in the order of sending
  #keysBeforePing = []; // those that were in flight when the last ping was sent
  #readKeys = new Set(); // those that the server has read
  #waitingSince = Infinity;

  // Since when the server has owed the next acknowledgement, by performance.now(); Infinity if it owes none.
  get waitingSince() {
    return this.#waitingSince;
  }

  has(key) {
    return this.#keys.has(key);
  }

  add(key) {
    this.#keys.add(key);
    this.#waitingSince = Math.min(this.#waitingSince, performance.now());
  }

  acknowledge(key) {
    if (!this.#keys.delete(key)) return;
    this.#waitingSince = this.#keys.size > 0 ? performance.now() : Infinity;
  }

  pingSent() {
    this.#keysBeforePing = [...this.#keys];
  }

  pongReceived() {
    this.#readKeys = new Set(this.#keysBeforePing);
  }

  // Returns whether the message is in flight, and the server may not have read it.
  isUnread(key) {
    return this.#keys.has(key) && !this.#readKeys.has(key);
  }
}
