// The connection to the server: it sends messages from the outbox, receives messages and events, and opens a
// new socket whenever one breaks.
//
// No message is lost, and none is shown twice. Each new socket asks for the messages after the last id that
// the page has seen (`?since=ID`). A message stays in the outbox until the server has sent its own copy of
// it, which is the acknowledgement. Until then it may be sent again, because the server recognises its key.
//
// A connection can die without notice: the computer slept, or a proxy drops everything. A script can neither
// send nor see a WebSocket ping (5.5.2). So the page sends `{"event": "ping"}` when it has received nothing
// for a while, and gives the socket up if that brings no answer. A message may wait for its acknowledgement
// for as long as the server answers pings: the server has it, and shows it when its history (such as Redis)
// works again.
//
// Left out: what is shown (app.js, message_list.js), and what survives a reload (outbox.js).

import { InFlight } from './in_flight.js';
import { decodeMessage, decodeOlder, decodeOnline, encodeMessage, isId, isLater } from './message.js';
import { TOO_OLD } from './outbox.js';

const INITIAL_BACKOFF = 1_000; // ms; each wait before a new socket lasts between half a backoff and a whole one
const MAX_BACKOFF = 30_000; // ms
const STABLE_AFTER = 60_000; // ms that a socket must have been open before the backoff begins anew

const OPEN_TIMEOUT = 20_000; // ms
const PONG_TIMEOUT = 10_000; // ms until anything, be it the pong or not, must have been received
const URGENT_TIMEOUT = 5_000; // ms; replaces either timeout when somebody looks at the page
const PING_AFTER = 20_000; // ms without receiving anything
const PING_AFTER_SENDING = 10_000; // ms without receiving anything while a message is in flight

const MAX_BREAKS = 5; // connections that may break over the same message before it is given up
const MAX_SEEN_IDS = 2_000; // more than the 500 messages that a server replays

// Close codes that say: the message itself is wrong. If it were sent again, it would be refused again.
const REFUSALS = [1003, 1007, 1008, 1009];
// Close codes of a server that goes away or restarts. No message is the reason.
const GOING_AWAY = [1001, 1012];

// The listener has these methods:
// - onState(name, {reason, until}): `name` is connecting, open, waiting (for a new attempt at `until`, in ms
//   since 1970) or closed (for good). `reason` is given for waiting and closed, and may be empty.
// - onMessage(message, wasSent), with strings as from decodeMessage. `wasSent` says that it is the copy of one
//   that this page has sent.
// - onGap(): there are messages at this place that the server does not send.
// - onOlder({before, messages, more, failed}): the answer to askForOlder.
// - onOnline({count, people}), where people have a {username, avatar}.
// - onSlowed(rate): the server takes no more than so many messages a second from this page.
// - onFailed(key, reason, canRetry): the message was not sent. `canRetry` is false where the server refuses
//   it.
//
// A reason is a text in the server's words, or {key, ...} for translate.
//
// All times are in ms by performance.now(), where nothing else is said.
export class Connection {
  #url;
  #person;
  #outbox;
  #listener;

  #socket = null;
  #openedAt = Infinity;
  #aliveAt = 0; // when the other side last gave a sign of life
  #deadline = Infinity; // when something must have been received, or the socket is given up
  #isUrgent = false; // somebody looks at the page, so a dead socket is replaced without waiting
  #lastBufferedAmount = 0; // bytes
  #inFlight = new InFlight();

  #attempts = 0; // since a socket was last stable
  #retryTimer = null;
  #retryAt = Infinity;

  #lastId = '0';
  #seenIds = new Set();

  constructor(url, person, outbox, listener) {
    this.#url = url;
    this.#person = person;
    this.#outbox = outbox;
    this.#listener = listener;
  }

  // Opens a socket. Call it once; from then on the connection does so itself.
  connect() {
    clearTimeout(this.#retryTimer);
    this.#retryAt = Infinity;
    this.#openedAt = Infinity;
    this.#deadline = Infinity;
    this.#isUrgent = false;
    this.#lastBufferedAmount = 0;
    this.#inFlight = new InFlight();
    try {
      this.#socket = new WebSocket(`${this.#url}?since=${this.#lastId}`);
    } catch (error) {
      console.error(error); // a policy may forbid the socket today, and another one allow it tomorrow
      this.#handleClose(1006, error.message);
      return;
    }
    this.#socket.onopen = () => this.#handleOpen();
    this.#socket.onmessage = ({ data }) => this.#handleMessage(data);
    this.#socket.onclose = ({ code, reason }) => this.#handleClose(code, reason);
    this.#expectAnythingWithin(OPEN_TIMEOUT);
    this.#notify('onState', 'connecting');
  }

  // Checks the deadlines. Call it every few seconds; a browser that saves power may call it rarely or late.
  check() {
    const now = performance.now();
    if (now >= this.#retryAt) {
      this.connect();
      return;
    }
    if (this.#socket === null) return;
    this.#checkBufferedAmount();
    if (now >= this.#deadline) this.#giveUpSocket({ key: 'noAnswer' });
    else if (this.#isOpen && this.#deadline === Infinity && now >= this.#pingAt) this.#ping(PONG_TIMEOUT);
  }

  // A long message that goes out little by little is a sign of life. But if nothing is left to send, that
  // proves nothing: the system accepts the last bytes of a message, or a ping, even where nobody is at the
  // other end.
  #checkBufferedAmount() {
    const { bufferedAmount } = this.#socket;
    if (bufferedAmount > 0 && bufferedAmount < this.#lastBufferedAmount) this.#noteSignOfLife();
    this.#lastBufferedAmount = bufferedAmount;
  }

  get #pingAt() {
    const { waitingSince } = this.#inFlight;
    if (waitingSince === Infinity) return this.#aliveAt + PING_AFTER;
    return Math.max(this.#aliveAt, waitingSince) + PING_AFTER_SENDING;
  }

  // Call it when the network is back, or when somebody looks at the page: it connects at once, or finds out
  // within seconds whether the socket is dead.
  wake() {
    if (this.#retryAt < Infinity) {
      this.connect();
      return;
    }
    if (this.#socket === null || this.#isUrgent) return;
    this.#isUrgent = true;
    const wasClosedUnnoticed = this.#socket.readyState > WebSocket.OPEN; // while the page was frozen
    if (wasClosedUnnoticed) this.#giveUpSocket('');
    else if (this.#isOpen) this.#ping(URGENT_TIMEOUT);
    else this.#expectAnythingWithin(URGENT_TIMEOUT);
  }

  // Sends a text, now or once there is an open socket. Returns its message, or null where the outbox is full.
  send(text) {
    const message = this.#outbox.add(text);
    if (message && this.#isOpen) this.#sendOutbox();
    return message;
  }

  // Sends a failed message again. Returns it, or undefined where no such message has failed.
  retry(key) {
    const message = this.#outbox.retry(key);
    if (message && this.#isOpen) this.#sendOutbox();
    return message;
  }

  // Asks for the messages directly before an id. Returns false where there is no connection.
  askForOlder(id) {
    if (!this.#isOpen) return false;
    this.#socket.send(JSON.stringify({ event: 'older', before: id }));
    return true;
  }

  get #isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN && this.#openedAt < Infinity;
  }

  #handleOpen() {
    this.#openedAt = performance.now();
    this.#noteSignOfLife();
    this.#socket.send(JSON.stringify({ event: 'join', ...this.#person }));
    this.#sendOutbox();
    this.#notify('onState', 'open');
  }

  // Sends all messages that are not in flight yet. But a message over which a connection broke is sent alone,
  // and the others wait until it is acknowledged: if the connection breaks over it again, they are not
  // affected.
  #sendOutbox() {
    for (const message of this.#outbox) {
      if (this.#inFlight.has(message.key)) {
        if (message.breaks > 0) return;
      } else if (this.#outbox.isStale(message)) {
        this.#outbox.giveUp(message.key);
        this.#notify('onFailed', message.key, TOO_OLD, true);
      } else {
        this.#inFlight.add(message.key);
        this.#socket.send(encodeMessage(message));
        if (message.breaks > 0) return;
      }
    }
  }

  #ping(timeout) {
    this.#inFlight.pingSent();
    this.#socket.send('{"event":"ping"}');
    this.#expectAnythingWithin(timeout);
  }

  #expectAnythingWithin(timeout) {
    this.#deadline = Math.min(this.#deadline, performance.now() + timeout);
  }

  #noteSignOfLife() {
    this.#aliveAt = performance.now();
    this.#deadline = Infinity;
    this.#isUrgent = false;
  }

  // Whatever the server sends: if it makes no sense, it is reported on the console, and nothing else happens.
  #handleMessage(text) {
    this.#noteSignOfLife();
    let data;
    try {
      data = JSON.parse(text);
    } catch (error) {
      console.error('The server sent something that is not JSON:', error);
      return;
    }
    if (typeof data !== 'object' || data === null) console.error('The server sent no JSON object:', data);
    else if (data.event) this.#handleEvent(data);
    else if ('message' in data) this.#handleChatMessage(data);
    else console.error('The server sent an object that is not a message:', data);
  }

  // Events of later servers, which this page does not know, are ignored.
  #handleEvent(data) {
    if (data.event === 'pong') this.#inFlight.pongReceived();
    if (data.event === 'gap') this.#notify('onGap');
    if (data.event === 'older') this.#handleOlder(data);
    if (data.event === 'slowed') this.#notify('onSlowed', Number(data.rate));
    if (data.event === 'online') this.#notify('onOnline', decodeOnline(data));
  }

  // Among older messages can be one that is still in the outbox: the server had it, but its acknowledgement
  // was lost, and more has been said since than a server replays.
  #handleOlder(data) {
    const answer = decodeOlder(data);
    for (const { key } of answer.messages) this.#acknowledge(key);
    this.#notify('onOlder', answer);
  }

  #handleChatMessage(data) {
    const isOwn = this.#acknowledge(data.key);
    if (isId(data.id)) {
      // An id that is lower than the last one can be new: after the clock of a server without a history file
      // was set back, it gives out lower ids. So the page remembers which ids it has seen, and not the
      // highest alone.
      if (this.#seenIds.has(data.id)) return;
      this.#rememberId(data.id);
      // The copy of a message that was sent again can be an old one. It must not move `since` back.
      if (!isOwn || isLater(data.id, this.#lastId)) this.#lastId = data.id;
    }
    this.#notify('onMessage', decodeMessage(data), isOwn);
  }

  #rememberId(id) {
    this.#seenIds.add(id);
    if (this.#seenIds.size <= MAX_SEEN_IDS) return;
    const [oldest] = this.#seenIds;
    this.#seenIds.delete(oldest);
  }

  // Returns whether the key is that of a message in the outbox.
  #acknowledge(key) {
    const isOwn = this.#outbox.remove(key);
    this.#inFlight.acknowledge(key);
    if (isOwn && this.#isOpen) this.#sendOutbox();
    return isOwn;
  }

  // Ends a socket that is dead, and might take minutes to notice that itself. The other side has not closed
  // it, so no message can be the reason.
  #giveUpSocket(reason) {
    const socket = this.#socket;
    socket.onopen = null;
    socket.onmessage = null;
    socket.onclose = null;
    socket.close();
    const reconnectNow = this.#isUrgent;
    const wasOpen = this.#openedAt < Infinity;
    this.#forgetSocket();
    this.#backOff(wasOpen ? INITIAL_BACKOFF : MAX_BACKOFF, reason);
    if (reconnectNow) this.connect();
  }

  // The other side closed the socket, or the network broke it.
  #handleClose(code, reason) {
    this.#forgetSocket();
    if (REFUSALS.includes(code)) {
      this.#handleRefusal(code, reason || { key: `refused${code}` });
      return;
    }
    if (!GOING_AWAY.includes(code)) this.#blameOldestUnread(reason);
    this.#backOff(MAX_BACKOFF, reason);
  }

  #forgetSocket() {
    this.#socket = null;
    this.#deadline = Infinity;
    if (performance.now() - this.#openedAt >= STABLE_AFTER) this.#attempts = 0;
  }

  // Connects again after a while: the backoff doubles with each attempt, up to `maxBackoff` (7.2.3).
  #backOff(maxBackoff, reason) {
    const backoff = Math.min(maxBackoff, INITIAL_BACKOFF * 2 ** this.#attempts);
    this.#attempts += 1;
    this.#scheduleReconnect(backoff, reason);
  }

  // 7.2.3: the wait is random, because a server that fails is lost by all its pages at the same moment.
  #scheduleReconnect(backoff, reason) {
    const wait = (backoff / 2) * (1 + Math.random());
    this.#retryAt = performance.now() + wait;
    this.#retryTimer = setTimeout(() => this.connect(), wait);
    this.#notify('onState', 'waiting', { reason, until: Date.now() + wait });
  }

  // Returns the messages that may be the reason why the other side closed the socket, the oldest first: they
  // were sent on it, and the server may not have read them before.
  get #unreadMessages() {
    return [...this.#outbox].filter(({ key }) => this.#inFlight.isUnread(key));
  }

  // The server reads messages in the order of sending. So if a message broke the connection, it was the
  // oldest unread one. A message may break each connection without a refusal ever arriving, for example
  // because a proxy loses the Close frame. It is given up after MAX_BREAKS.
  #blameOldestUnread(reason) {
    const [message] = this.#unreadMessages;
    if (message === undefined) return;
    message.breaks += 1;
    if (message.breaks < MAX_BREAKS) return;
    this.#outbox.giveUp(message.key);
    const failure = { key: reason ? 'brokenBecause' : 'broken', n: MAX_BREAKS, reason };
    this.#notify('onFailed', message.key, failure, true);
  }

  // The server does not say which message it refuses. If the message was too big, it must be the biggest
  // unread one, else the oldest. If that guess is wrong, the message's acknowledgement still arrives, and the
  // message list then shows it as sent.
  #handleRefusal(code, reason) {
    const unread = this.#unreadMessages;
    if (unread.length === 0) {
      this.#notify('onState', 'closed', { reason });
      return;
    }
    const { key } = code === 1009 ? biggestOf(unread) : unread[0];
    this.#outbox.refuse(key, reason);
    this.#notify('onFailed', key, reason, false);
    this.#scheduleReconnect(INITIAL_BACKOFF, reason); // the server works, so the backoff does not grow
  }

  // A listener that throws must not end the connection.
  #notify(method, ...details) {
    try {
      this.#listener[method](...details);
    } catch (error) {
      console.error(error);
    }
  }
}

// Measured in bytes on the wire. Of messages of the same size, the first.
function biggestOf(messages) {
  const sizes = messages.map((message) => new TextEncoder().encode(encodeMessage(message)).length);
  return messages[sizes.indexOf(Math.max(...sizes))];
}
