// The connection to the chat: numbered messages come in, keyed messages go out, and a new socket is
// opened whenever one breaks.
//
// It asks each new socket for what came after the last id it has seen, and what is said stays in the
// outbox until its own copy comes back, so a broken connection neither loses nor doubles a message.
// A connection can also die without a word (a machine that slept, a proxy that swallows everything),
// and scripts see no pings. So the page asks `{"event": "ping"}` where nothing came for a while, and
// ends a socket only if that brings no answer. A message may wait for its copy for as long as the server
// answers: it has the message, and shows it once its history (such as Redis) is there again.

import { TOO_OLD } from './outbox.js';

const FIRST_STEP = 1_000; // ms; each wait lasts between half a step and a whole one, by chance
const LAST_STEP = 30_000; // ms
const STABLE = 60_000; // ms a socket must have lived before the waits start small again
const OPEN_WITHIN = 20_000; // ms that a socket has to open
const QUIET = 20_000; // ms without hearing anything, after which the page asks
const COPY_WITHIN = 10_000; // ms without hearing anything since a message was sent, after which it asks, too
const PONG_WITHIN = 10_000; // ms from the question until something must have come, or the socket is dead
const PONG_AWAITED = 5_000; // ms, the same where somebody looks at the page
const MOST_LOSSES = 5; // sockets that the other side may close over the same message
const REMEMBERED = 2_000; // ids; more than the 500 messages a server replays

const ID = /^\d{1,19}(-\d{1,19})?$/; // what a server takes back as `since`

// Closes that say: what you sent is wrong. Sending it again would bring the same answer for ever.
const REFUSALS = { 1003: 'not accepted', 1007: 'not valid text', 1008: 'not allowed', 1009: 'too big' };
const FAREWELLS = [1001, 1012]; // the server goes away, and no message is to blame

// The listener has: state(name, detail), message(message), gap(), online({count, usernames}) and
// failed(key, reason, again): where `again` is true, `retry(key)` may help; else the server refuses the
// message for what it is. States: connecting, open, waiting {reason, until}, closed {reason}.
export class Connection {
  #url;
  #person;
  #outbox;
  #listener;
  #socket = null;
  #openedAt = Infinity; // this and all times below are performance.now()
  #heardAt = 0;
  #due = Infinity; // when something must have been heard, or the socket is dead
  #awaited = false; // somebody looks at the page, so a dead socket is replaced without a wait
  #buffered = 0; // bytes that the socket had still to send when last looked at
  #written = new Set(); // keys of messages that this socket was given, and that have no copy yet
  #asked = []; // keys of those that went out before the last question
  #read = new Set(); // keys of those that the server has read: it has answered a question that followed them
  #owedAt = Infinity; // since when the server owes the next of their copies
  #attempts = 0;
  #retryTimer = null;
  #retryAt = Infinity;
  #lastId = '0';
  #seen = new Set();

  constructor(url, person, outbox, listener) {
    this.#url = url;
    this.#person = person;
    this.#outbox = outbox;
    this.#listener = listener;
  }

  connect() {
    clearTimeout(this.#retryTimer);
    this.#retryAt = Infinity;
    this.#openedAt = Infinity;
    this.#due = Infinity;
    this.#owedAt = Infinity;
    this.#awaited = false;
    this.#buffered = 0;
    this.#asked = [];
    this.#written.clear();
    this.#read.clear();
    try {
      this.#socket = new WebSocket(`${this.#url}?since=${this.#lastId}`);
    } catch (error) {
      console.error(error); // such as a policy that forbids it; it may be another one tomorrow
      return this.#closed(1006, error.message);
    }
    this.#socket.onopen = () => this.#opened();
    this.#socket.onmessage = ({ data }) => this.#received(data);
    this.#socket.onclose = ({ code, reason }) => this.#closed(code, reason);
    this.#expect(OPEN_WITHIN);
    this.#tell('state', 'connecting');
  }

  // Every few seconds; rarely or late where the browser saves power.
  beat() {
    const now = performance.now();
    if (now >= this.#retryAt) return this.connect();
    if (this.#socket === null) return;
    // A long message that goes out bit by bit is a sign of life. That its last bytes, or those of a
    // question, went out proves nothing: the system takes so few where nobody is at the other end, too.
    const buffered = this.#socket.bufferedAmount;
    if (buffered > 0 && buffered < this.#buffered) this.#heard();
    this.#buffered = buffered;
    if (now >= this.#due) return this.#drop('no answer');
    if (this.#isOpen && this.#due === Infinity && now >= this.#askAt) this.#ask(PONG_WITHIN);
  }

  get #askAt() {
    if (this.#owedAt === Infinity) return this.#heardAt + QUIET;
    return Math.max(this.#heardAt, this.#owedAt) + COPY_WITHIN;
  }

  // There is reason to hope, or to doubt: the network is back, or somebody looks.
  wake() {
    if (this.#retryAt < Infinity) return this.connect();
    if (this.#socket === null) return;
    if (this.#awaited) return;
    this.#awaited = true;
    if (this.#socket.readyState > WebSocket.OPEN) this.#drop(''); // closed while the page was frozen
    else if (this.#isOpen) this.#ask(PONG_AWAITED);
    else this.#expect(PONG_AWAITED);
  }

  // The message that is on its way now, or null where too much waits already.
  send(text) {
    const message = this.#outbox.add(text);
    if (message && this.#isOpen) this.#writeWaiting();
    return message;
  }

  // Send what was given up.
  retry(key) {
    const message = this.#outbox.revive(key);
    if (message && this.#isOpen) this.#writeWaiting();
    return message;
  }

  get #isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN && this.#openedAt < Infinity;
  }

  #opened() {
    this.#openedAt = performance.now();
    this.#heard();
    this.#socket.send(JSON.stringify({ event: 'join', ...this.#person }));
    this.#writeWaiting();
    this.#tell('state', 'open');
  }

  // All that waits and is not too old. But a message over which a socket broke goes alone until it is
  // through, so that it takes no other down with it.
  #writeWaiting() {
    for (const message of this.#outbox) {
      if (this.#written.has(message.key)) {
        if (message.losses > 0) return;
      } else if (this.#outbox.isStale(message)) {
        this.#outbox.giveUp(message.key);
        this.#tell('failed', message.key, TOO_OLD, true);
      } else {
        this.#write(message);
        if (message.losses > 0) return;
      }
    }
  }

  #write(message) {
    this.#written.add(message.key);
    this.#owedAt = Math.min(this.#owedAt, performance.now());
    this.#socket.send(asSent(message));
  }

  #ask(patience) {
    this.#asked = [...this.#written];
    this.#socket.send('{"event":"ping"}');
    this.#expect(patience);
  }

  #expect(patience) {
    this.#due = Math.min(this.#due, performance.now() + patience);
  }

  #heard() {
    this.#heardAt = performance.now();
    this.#due = Infinity;
    this.#awaited = false;
  }

  // Whatever the server sends, it costs at most itself.
  #received(text) {
    this.#heard();
    let data;
    try {
      data = JSON.parse(text);
    } catch (error) {
      return console.error('the server sent no JSON:', error);
    }
    if (typeof data !== 'object' || data === null) return console.error('the server sent no object:', data);
    if (data.event === 'pong') this.#read = new Set(this.#asked);
    if (data.event === 'online') this.#online(data);
    if (data.event === 'gap') this.#tell('gap');
    if (data.event) return;
    if ('message' in data) this.#heardMessage(data);
    else console.error('the server sent what is no message:', data);
  }

  #online({ count, usernames }) {
    const names = Array.isArray(usernames) ? usernames.map(asText) : [];
    this.#tell('online', { count: Number.isInteger(count) ? count : names.length, usernames: names });
  }

  #heardMessage({ id, key, email, username, message, avatar }) {
    const isOwn = this.#acknowledge(key);
    if (typeof id === 'string' && ID.test(id)) {
      // Compared as a whole and not as a number: after its server's clock was set back, a chat without
      // history gives out lower ids, and they are new all the same.
      if (this.#seen.has(id)) return;
      this.#seen.add(id);
      if (this.#seen.size > REMEMBERED) this.#seen.delete(this.#seen.values().next().value);
      // But the copy of what was said again may be one from long ago.
      if (!isOwn || isLater(id, this.#lastId)) this.#lastId = id;
    }
    const fields = Object.entries({ id, key, email, username, message, avatar });
    this.#tell('message', Object.fromEntries(fields.map(([name, value]) => [name, asText(value)])));
  }

  #acknowledge(key) {
    const isOwn = this.#outbox.delete(key);
    if (this.#written.delete(key)) this.#owedAt = this.#written.size > 0 ? performance.now() : Infinity;
    if (isOwn && this.#isOpen) this.#writeWaiting();
    return isOwn;
  }

  // Ends a socket that is dead; it may take minutes to notice that itself. No message is to blame: it was
  // not the other side that closed.
  #drop(reason) {
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    const isAwaited = this.#awaited;
    const wasOpen = this.#openedAt < Infinity;
    this.#forgetSocket();
    this.#tryAgain(reason, wasOpen ? FIRST_STEP : LAST_STEP);
    if (isAwaited) this.connect();
  }

  // The other side closed the socket, or the network did.
  #closed(code, reason) {
    this.#forgetSocket();
    if (Object.hasOwn(REFUSALS, code)) return this.#refused(code, reason || REFUSALS[code]);
    if (!FAREWELLS.includes(code)) this.#blame(reason);
    this.#tryAgain(reason, LAST_STEP);
  }

  #forgetSocket() {
    this.#socket = null;
    this.#due = Infinity;
    if (performance.now() - this.#openedAt >= STABLE) this.#attempts = 0;
  }

  // Each wait has twice the step of the one before, up to the longest.
  #tryAgain(reason, longest) {
    this.#reconnect(Math.min(longest, FIRST_STEP * 2 ** this.#attempts), reason);
    this.#attempts += 1;
  }

  #reconnect(step, reason) {
    const wait = (step / 2) * (1 + Math.random()); // scattered: a thousand pages lose a server at once
    this.#retryAt = performance.now() + wait;
    this.#retryTimer = setTimeout(() => this.connect(), wait);
    this.#tell('state', 'waiting', { reason, until: Date.now() + wait });
  }

  // Messages that may be why the other side closed, the oldest first: this socket was given them, and the
  // server has neither sent their copies nor answered a question that came after them.
  get #suspects() {
    return [...this.#outbox].filter(({ key }) => this.#written.has(key) && !this.#read.has(key));
  }

  // A server takes messages in the order of saying, so if it was a message that broke the socket, it was
  // the oldest of the suspects. One over which socket after socket breaks would do so for ever: a proxy,
  // for example, may lose the Close that says why.
  #blame(reason) {
    const [suspect] = this.#suspects;
    if (suspect === undefined) return;
    suspect.losses += 1;
    if (suspect.losses < MOST_LOSSES) return;
    this.#outbox.giveUp(suspect.key);
    const because = reason ? `: ${reason}` : '';
    this.#tell('failed', suspect.key, `the connection broke each of ${MOST_LOSSES} times${because}`, true);
  }

  // The server does not say which message it meant. The biggest was too big; else it was the oldest of
  // the suspects, and should that one be innocent, its copy is only late and takes this back.
  #refused(code, reason) {
    const size = (message) => (code === 1009 ? new TextEncoder().encode(asSent(message)).length : 0);
    const suspects = this.#suspects;
    const culprit = suspects.reduce((worst, each) => (size(each) > size(worst) ? each : worst), suspects[0]);
    if (culprit === undefined) return this.#tell('state', 'closed', { reason });
    this.#outbox.refuse(culprit.key, reason);
    this.#tell('failed', culprit.key, reason, false);
    this.#reconnect(FIRST_STEP, reason); // the server is well, it only refused: no long waits
  }

  // A listener that fails must not take the connection down with it.
  #tell(what, ...details) {
    try {
      this.#listener[what](...details);
    } catch (error) {
      console.error(error);
    }
  }
}

// What goes over the wire, and what a server measures.
function asSent({ email, username, message, key }) {
  return JSON.stringify({ email, username, message, key });
}

function asText(value) {
  if (typeof value === 'string') return value;
  return value === undefined || value === null ? '' : JSON.stringify(value);
}

// Whether an id comes after another; the parts are too long for numbers.
function isLater(id, other) {
  const [time, sequence = 0n] = id.split('-').map(BigInt);
  const [otherTime, otherSequence = 0n] = other.split('-').map(BigInt);
  return time === otherTime ? sequence > otherSequence : time > otherTime;
}
