// What the page and the server's /playground say to each other beside the echoes, see
// playground/commands.py and playground/frame_events.py.
//
// One rule holds in both directions: a text that begins with exactly one slash is meant for the program at the
// other end. Any other message is data, and comes back as it came. Left out: what is done with it (connection.js,
// echo.js).

import { encodeUtf8 } from './hex.js';

const EVENT = /^\/(pong|help|refused|frame|dropped) (\{.*\})$/s;
const FRAME_EVENTS = ['frame', 'dropped'];

// Routes of the server. Only the playground has commands and tells frames; the echo of the original sends text back
// in brackets.
export const ROUTES = {
  playground: { address: 'playground?frames', hasCommands: true },
  echo: { address: 'echo', hasCommands: false },
};

export function isCommand(data) {
  return typeof data === 'string' && data.startsWith('/') && !data.startsWith('//');
}

// Whether a command is answered as data is, by a message that is no event.
export function asksForMessage(command) {
  return command.startsWith('/fragments ');
}

// Whether an event tells of frames. The frame that carries it is neither told nor counted.
export function tellsFrames(event) {
  return FRAME_EVENTS.includes(event?.name);
}

// Returns an event as {name, to, ...}, or null where the text is none. `to` is the number of the message that it
// answers, if it does; the first one of a connection is 1.
export function parseEvent(text) {
  const found = EVENT.exec(text);
  if (!found) return null;
  try {
    return { ...JSON.parse(found[2]), name: found[1] };
  } catch {
    return null; // this server is not ours
  }
}

// Returns the size of a text or of an array of bytes on the wire, without the frame's header.
export function sizeOf(data) {
  return typeof data === 'string' ? encodeUtf8(data).length : data.length;
}
