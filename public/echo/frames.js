// The frames that the server has told, and which line of the log each belongs to. Either may come first.
//
// A message is known by its number in its direction, a ping or a pong by its payload, and a Close by its direction.
// What belongs to nothing that the page has asked for, as the pings of the keepalive, belongs to the connection. Left
// out: what a frame looks like (frame_figure.js), and Close frames that nobody tells (close_frame.js).

import { encodeHex } from './hex.js';

const MAX_FRAMES = 20; // of one line; of more, the first and the newest are kept
const MAX_LISTS = 1_500; // lines of a connection whose frames are remembered
const OPCODES = { 8: 'close', 9: 'ping', 10: 'pong' };

// The frames of one line.
export class FrameList {
  frames = []; // {frame, place}: place is the number of this frame in its line, and begins with 1
  total = 0;
  onChange = () => {};

  add(frame) {
    this.total += 1;
    if (this.frames.length >= MAX_FRAMES) this.frames.splice(1, 1);
    this.frames.push({ frame, place: this.total });
    this.onChange();
  }
}

// The frames of one connection.
export class FrameBook {
  ofConnection = new FrameList(); // those that belong to no line of their own

  #lists = new Map(); // by key
  #counts = new Map(); // how often a ping or pong with this payload was a line, or a frame

  // `from` is client or server, here and below.
  ofMessage(from, number) {
    return this.#listOf(`${from} message ${number}`);
  }

  // For a new line that shows a ping or a pong with this payload, a text. The second line that shows the same has the
  // second frame.
  ofControl(from, kind, payload) {
    return this.#listOf(this.#nextKey('line', `${from} ${kind} ${encodeHex(payload)}`));
  }

  ofClose(from) {
    return this.#listOf(`${from} close`);
  }

  add(frame) {
    const key = this.#keyOf(frame);
    const list = key === null ? this.ofConnection : this.#listOf(key);
    list.add(frame);
  }

  #keyOf(frame) {
    const { from, message, payload } = frame;
    if (message !== null) return `${from} message ${message}`;
    const kind = OPCODES[frame.opcode];
    if (kind === 'close') return `${from} close`;
    return payload === '' ? null : this.#nextKey('frame', `${from} ${kind} ${payload}`);
  }

  #nextKey(what, key) {
    const count = (this.#counts.get(`${what} ${key}`) ?? 0) + 1;
    this.#counts.set(`${what} ${key}`, count);
    return `${key} ${count}`;
  }

  #listOf(key) {
    if (!this.#lists.has(key)) {
      this.#lists.set(key, new FrameList());
      if (this.#lists.size > MAX_LISTS) this.#lists.delete(this.#lists.keys().next().value);
    }
    return this.#lists.get(key);
  }
}
