// One connection to the server after another: it sends what it is given, finds out which answer belongs to which
// message, and tells how long that took.
//
// A connection can die without notice, and a dead socket can take minutes to say so. So an answer that is overdue
// ends it, and what the socket says afterwards is ignored. Left out: connecting again by itself, and sending a
// lost message again. The user's next message opens a new connection.

import { ROUTES, asksForMessage, isCommand, parseEvent, sizeOf, tellsFrames } from './wire.js';

const TIMEOUT = 10_000; // ms for the connection to open or to close, or for the next answer to arrive
const SLOWEST = 16; // bytes a ms; a large message and its echo have so much longer

// The listener has these methods:
// - onState(name): connecting, open, closing or closed.
// - onOpen({url, ms})
// - onSent({data, number}): data is a string or a Uint8Array. The messages of each direction are numbered from 1.
// - onReceived({data, number, ms, event, isAskedFor}): `ms` is undefined for what answers nothing. `event` is as from
//   parseEvent, or null for an echo, or if `isAskedFor` for a message that a command has asked for.
// - onFrames(event): the server tells a frame, or how many it does not tell, see playground/frame_events.py.
// - onClosing({code, reason}): the page has begun the closing handshake. Without a code, `code` is null.
// - onClosed({code, reason, wasClean, by, unsent}): `by` is who began: page, server or nobody. `unsent` is how many
//   messages waited for the connection in vain.
// - onOverdue({what, unsent}): the connection was given up, as it did not open, answer or close.
//
// All times are in ms by performance.now().
export class Connection {
  state = 'closed';

  #listener;
  #route = '';
  #socket = null;
  #connectedAt = 0;
  #timer = null; // runs while the server owes something
  #lastBuffered = 0; // bytes
  #count = 0; // messages that were sent
  #received = 0; // messages that came, without the events that tell frames
  #waiting = []; // messages that are sent when the connection is open
  #owed = []; // what was sent and not answered yet: {number, at, size, answer, isAskedFor}; answer is event or data

  constructor(listener) {
    this.#listener = listener;
  }

  // Opens a connection to one of ROUTES. The address is relative to the page, so that the echo also works behind
  // a proxy that adds a path.
  connect(route) {
    const url = new URL(ROUTES[route].address, document.baseURI);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    const old = this.#socket;
    this.#socket = null; // what it still says is ignored
    old?.close();
    this.#route = route;
    this.#count = 0;
    this.#received = 0;
    this.#waiting = [];
    this.#owed = [];
    this.#connectedAt = performance.now();
    this.#socket = this.#open(url.href);
    this.#setState('connecting');
    this.#watchAnew();
  }

  #open(url) {
    const socket = new WebSocket(url);
    socket.binaryType = 'arraybuffer';
    const listen = (type, handle) => socket.addEventListener(type, (event) => {
      if (socket === this.#socket) handle(event);
    });
    listen('open', () => this.#handleOpen(url));
    listen('message', ({ data }) => this.#handleMessage(data));
    listen('close', (event) => this.#handleClose(event));
    return socket;
  }

  // Sends a string as text, or a Uint8Array as binary data. Where there is no connection it opens one first.
  send(data) {
    if (this.state === 'closed' || this.state === 'closing') this.connect(this.#route);
    if (this.state === 'connecting') this.#waiting.push(data);
    else this.#sendNow(data);
  }

  #sendNow(data) {
    this.#count += 1;
    const isForServer = ROUTES[this.#route].hasCommands && isCommand(data);
    const isAskedFor = isForServer && asksForMessage(data);
    const answer = isForServer && !isAskedFor ? 'event' : 'data';
    this.#owed.push({ number: this.#count, at: performance.now(), size: sizeOf(data), answer, isAskedFor });
    this.#socket.send(data);
    this.#lastBuffered = this.#socket.bufferedAmount;
    this.#watch();
    this.#listener.onSent({ data, number: this.#count });
  }

  // Begins the closing handshake. The browser takes few codes, see refuseFromPage; null stands for none.
  close(code, reason) {
    if (code === null) this.#socket.close();
    else this.#socket.close(code, reason);
    this.#setState('closing');
    this.#watchAnew();
    this.#listener.onClosing({ code, reason });
  }

  #handleOpen(url) {
    this.#stopWatching();
    this.#setState('open');
    this.#listener.onOpen({ url, ms: performance.now() - this.#connectedAt });
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const data of waiting) this.#sendNow(data);
  }

  #handleMessage(received) {
    const data = typeof received === 'string' ? received : new Uint8Array(received);
    const event = ROUTES[this.#route].hasCommands && isCommand(data) ? parseEvent(data) : null;
    if (tellsFrames(event)) {
      this.#listener.onFrames(event);
      return;
    }
    const now = performance.now();
    this.#received += 1;
    const { at, isAskedFor } = this.#takeAnswered(event) ?? {};
    if (this.state !== 'closing') {
      this.#stopWatching();
      if (this.#owed.length > 0) this.#watch();
    }
    const ms = at === undefined ? undefined : now - at;
    this.#listener.onReceived({ data, number: this.#received, event, ms, isAskedFor });
  }

  // Returns what was sent and has its answer now. An event says which message it answers; echoes, and messages that a
  // command has asked for, come in the order of what they answer.
  #takeAnswered(event) {
    const answers = event ? ({ number }) => number === event.to : ({ answer }) => answer === 'data';
    const index = this.#owed.findIndex(answers);
    return index < 0 ? undefined : this.#owed.splice(index, 1)[0];
  }

  #handleClose({ code, reason, wasClean }) {
    const isByPage = this.state === 'closing';
    const by = isByPage ? 'page' : wasClean ? 'server' : 'nobody';
    const unsent = this.#waiting.length;
    this.#forget();
    this.#listener.onClosed({ code, reason, wasClean, by, unsent });
  }

  #forget() {
    this.#stopWatching();
    this.#socket = null;
    this.#setState('closed');
  }

  #setState(name) {
    this.state = name;
    this.#listener.onState(name);
  }

  // Watching for what is overdue

  // A timer that is running goes on. If each message started it again, somebody who sends again and again would
  // never learn that the connection is dead.
  #watch() {
    const bytes = this.#owed.reduce((sum, { size }) => sum + size, 0);
    this.#timer ??= setTimeout(() => this.#checkOverdue(), TIMEOUT + bytes / SLOWEST);
  }

  #watchAnew() {
    this.#stopWatching();
    this.#watch();
  }

  #stopWatching() {
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  #checkOverdue() {
    this.#timer = null;
    const buffered = this.#socket.bufferedAmount;
    const isUnderWay = buffered > 0 && buffered < this.#lastBuffered; // the network is slow, but not dead
    this.#lastBuffered = buffered;
    if (isUnderWay) this.#watch();
    else this.#giveUp();
  }

  #giveUp() {
    const what = this.state;
    const unsent = this.#waiting.length;
    const dead = this.#socket;
    this.#forget();
    dead.close();
    this.#listener.onOverdue({ what, unsent });
  }
}
