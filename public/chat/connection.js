// The connection to the chat: numbered messages come in, keyed messages go out, and a new socket is
// opened whenever one breaks.
//
// It asks each new socket for what came after the last id it has seen, and what it says stays in the
// outbox until its own copy comes back, so a broken connection neither loses nor doubles a message.

const FIRST_STEP = 1_000; // ms; a wait is half a step to a whole one, so half a second at least
const LAST_STEP = 30_000; // ms
const STABLE = 60_000; // ms a socket must have lived before the waits start small again
const PATIENCE = 20_000; // ms of silence while an answer is due; scripts cannot ping: this finds dead peers
const REMEMBERED = 2_000; // ids; more than the 500 messages a server replays

// Closes that say: what you sent is wrong. Sending it again would bring the same answer for ever.
const REFUSALS = { 1003: 'not accepted', 1007: 'not valid text', 1008: 'not allowed', 1009: 'too big' };

// The listener has: state(name, detail), message(message), gap(), online(event), sent(key) and
// failed(key, reason). States: connecting, open, waiting {reason, until}, closed {reason}.
export class Connection {
  #url;
  #person;
  #listener;
  #socket = null;
  #openedAt = Infinity;
  #attempts = 0;
  #retry = null;
  #watchdog = null;
  #gap = false;
  #lastId = '0';
  #seen = new Set();
  #outbox = new Map(); // key → text, in the order of saying

  constructor(url, person, listener) {
    this.#url = url;
    this.#person = person;
    this.#listener = listener;
  }

  get unsent() {
    return this.#outbox.size;
  }

  connect() {
    clearTimeout(this.#retry);
    this.#retry = null;
    this.#gap = false;
    this.#openedAt = Infinity;
    this.#socket = new WebSocket(`${this.#url}?since=${this.#lastId}`);
    this.#socket.onopen = () => this.#opened();
    this.#socket.onmessage = ({ data }) => this.#received(JSON.parse(data));
    this.#socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    this.#watch();
    this.#listener.state('connecting');
  }

  // There is reason to hope: the network is back, or somebody looks.
  wake() {
    if (this.#retry !== null) this.connect();
  }

  send(text) {
    const key = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join('-');
    this.#outbox.set(key, text);
    if (this.#socket?.readyState === WebSocket.OPEN) this.#write(key, text);
    return key;
  }

  #write(key, text) {
    this.#socket.send(JSON.stringify({ ...this.#person, message: text, key }));
    if (this.#watchdog === null) this.#watch();
  }

  #opened() {
    this.#unwatch();
    this.#openedAt = performance.now();
    this.#listener.state('open');
    this.#socket.send(JSON.stringify({ event: 'join', ...this.#person }));
    for (const [key, text] of this.#outbox) this.#write(key, text);
  }

  #received(data) {
    if (this.#watchdog !== null) this.#watch();
    if (data.event === 'online') this.#listener.online(data);
    if (data.event === 'gap') {
      this.#gap = true;
      this.#unwatch();
      this.#listener.gap();
    }
    if (data.event) return;
    this.#acknowledge(data.key);
    // Compared as a whole and not as a number: after its server's clock was set back, a chat without
    // history gives out lower ids, and they are new all the same.
    if (this.#seen.has(data.id)) return;
    this.#seen.add(data.id);
    if (this.#seen.size > REMEMBERED) this.#seen.delete(this.#seen.values().next().value);
    this.#lastId = data.id;
    this.#listener.message(data);
  }

  // A server takes messages in the order of saying: those said before this one are in the log as well,
  // though their copies may lie in a gap.
  #acknowledge(key) {
    if (!this.#outbox.has(key)) return;
    for (const earlier of this.#outbox.keys()) {
      this.#outbox.delete(earlier);
      if (earlier === key) break;
      this.#listener.sent(earlier);
    }
    if (this.#outbox.size === 0) this.#unwatch();
  }

  #lost(code, reason) {
    this.#unwatch();
    this.#socket = null;
    if (performance.now() - this.#openedAt >= STABLE) this.#attempts = 0;
    if (code in REFUSALS) return this.#refused(code, reason || REFUSALS[code]);
    this.#reconnect(Math.min(LAST_STEP, FIRST_STEP * 2 ** this.#attempts), reason);
    this.#attempts += 1;
  }

  #reconnect(step, reason) {
    const wait = (step / 2) * (1 + Math.random()); // scattered: a thousand pages lose a server at once
    this.#retry = setTimeout(() => this.connect(), wait);
    this.#listener.state('waiting', { reason, until: Date.now() + wait });
  }

  // The server does not say which message it meant. The biggest was too big; else it was the oldest
  // without a copy, and should that one be innocent, its copy is only late and takes this back.
  #refused(code, reason) {
    const size = (key) => (code === 1009 ? new TextEncoder().encode(this.#outbox.get(key)).length : 0);
    const keys = [...this.#outbox.keys()];
    const culprit = keys.reduce((worst, key) => (size(key) > size(worst) ? key : worst), keys[0]);
    if (culprit === undefined) return this.#listener.state('closed', { reason });
    this.#outbox.delete(culprit);
    this.#listener.failed(culprit, reason);
    this.#reconnect(FIRST_STEP, reason); // the server is well, it only refused: no long waits
  }

  // Ends a socket on which nothing comes while a handshake or an own copy is due. Not after a gap: the
  // copy may be among what was left out, and the next acknowledged message speaks for it.
  #watch() {
    this.#unwatch();
    if (this.#gap) return;
    this.#watchdog = setTimeout(() => {
      const socket = this.#socket;
      socket.onopen = socket.onmessage = socket.onclose = null; // it may take minutes to notice its end
      socket.close();
      this.#lost(1006, 'no answer');
    }, PATIENCE);
  }

  #unwatch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = null;
  }
}
