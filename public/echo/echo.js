// The page of echo_server.py, to play with the protocol: it sends what the user wants, and writes down what was
// sent, what came back and how long that took, and what happened to the connection.
//
// A script can neither send nor see a WebSocket ping (5.5.2), nor see any frame, so the server tells of those
// (playground/). Left out: the connection itself (connection.js), how a line looks (line.js), and
// which frame belongs to which line (frames.js).

import { describeCode } from './close_codes.js';
import { makeCloseFrame } from './close_frame.js';
import { prepareCloseForm } from './close_form.js';
import { focusComposer, prepareComposer } from './composer.js';
import { Connection } from './connection.js';
import { FrameBook } from './frames.js';
import { setText } from './language.js';
import { prepareLanguageMenu } from './language_menu.js';
import { addLine, clearLog } from './log.js';
import { preparePanel, revealLog } from './panel.js';
import { sizeOf } from './wire.js';

const byId = (id) => document.getElementById(id);
const REFUSED = ['command', 'payload', 'parts', 'pings', 'code', 'reason'];
let frames = new FrameBook(); // of the connection that there is, or was last

const connection = new Connection({
  onState(name) {
    document.body.dataset.state = name;
    if (name !== 'closed') setText(byId('status'), name);
    if (name === 'connecting') frames = new FrameBook();
    if (name === 'closed') return;
    const losesFocus = byId('closed').contains(document.activeElement);
    byId('closed').hidden = true;
    if (losesFocus) focusComposer();
  },
  onOpen: ({ url, ms }) => addLine({
    kind: 'open',
    direction: 'none',
    words: { key: 'opened', url },
    ms,
    notes: [{ key: 'noteOpen' }, { key: 'noteKeepalive' }],
    frames: frames.ofConnection,
  }),
  onSent: ({ data, number }) => addLine({
    ...describeMessage(data),
    direction: 'sent',
    notes: notesOfSent(data),
    frames: frames.ofMessage('client', number),
  }),
  onReceived(message) {
    const { data, number, event, ms } = message;
    if (event?.name === 'pong') addPing(event);
    addLine({
      ...describeMessage(data),
      direction: 'received',
      ms,
      notes: notesOfReceived(message),
      frames: frames.ofMessage('server', number),
    });
  },
  onFrames(event) {
    if (event.name === 'frame') frames.add(event);
    else addLine({ kind: 'dropped', direction: 'none', words: { key: 'framesDropped', n: event.frames } });
  },
  onClosing(close) {
    addLine(describeClose(close, 'sent', 'noteCloseSent', framesOfClose('client', close)));
  },
  onClosed: showClosed,
  onOverdue: showOverdue,
});

// Messages

function describeMessage(data) {
  return { kind: typeof data === 'string' ? 'text' : 'binary', data, size: sizeOf(data) };
}

function notesOfSent(data) {
  return [{ key: typeof data === 'string' ? 'noteText' : 'noteBinary' }];
}

function notesOfReceived({ event, ms, isAskedFor }) {
  if (isAskedFor) return [{ key: 'noteFragments' }];
  if (event === null) return [{ key: ms === undefined ? 'noteUnasked' : 'noteEcho' }];
  if (event.name !== 'refused') return [{ key: event.name === 'pong' ? 'notePongEvent' : 'noteHelp' }];
  const why = REFUSED.includes(event.what) ? { key: `refused_${event.what}` } : String(event.why);
  return [{ key: 'noteRefused', why }];
}

// The server has told of a ping and its pong. The page has seen neither.
function addPing({ payload, ms }) {
  const line = { data: payload, size: sizeOf(payload) };
  const ping = frames.ofControl('server', 'ping', payload);
  addLine({ ...line, kind: 'ping', direction: 'received', notes: [{ key: 'notePing' }], frames: ping });
  if (ms === null) return; // the browser has answered a later ping instead
  const pong = frames.ofControl('client', 'pong', payload);
  addLine({ ...line, kind: 'pong', direction: 'sent', ms, notes: [{ key: 'notePong' }], frames: pong });
}

// The end of a connection

// A Close frame as a line. Its code is null or 1005 where the frame had none.
function describeClose({ code, reason }, direction, note, framesOfIt) {
  const hasCode = code !== null && code !== 1005;
  const words = hasCode ? { key: 'closeFrame', code: String(code), reason } : { key: 'closeFrameEmpty' };
  const size = hasCode ? 2 + sizeOf(reason) : 0;
  const meaning = describeCode(hasCode ? code : 1005);
  const told = { key: 'nameAndMeaning', name: { key: meaning.name }, meaning: { key: meaning.meaning } };
  return { kind: 'close', direction, words, size, notes: [told, { key: note }], frames: framesOfIt };
}

// The server tells only a Close that a command has asked for, before it sends it. The page knows how the others look.
function framesOfClose(from, { code, reason }) {
  const list = frames.ofClose(from);
  if (list.total === 0) list.add(makeCloseFrame(from, code, reason));
  return list;
}

// Both Close frames of a clean end are told; the browser shows neither, but says that they were there.
function showClosed({ code, reason, wasClean, by, unsent }) {
  if (wasClean) {
    const close = { code, reason };
    const note = by === 'page' ? 'noteCloseAnswer' : 'noteCloseReceived';
    addLine(describeClose(close, 'received', note, framesOfClose('server', close)));
    if (by === 'server') addLine(describeClose({ code, reason: '' }, 'sent', 'noteCloseAnswered'));
  }
  const { name, meaning } = describeCode(code);
  const notes = [
    { key: meaning },
    { key: wasClean ? 'clean' : 'notClean' },
    { key: `by_${by}` },
    ...notesOfUnsent(unsent),
  ];
  const words = { key: 'ended', code: String(code), name: { key: name } };
  addLine({ kind: 'end', direction: 'none', words, notes });
  setText(byId('status'), words.key, words);
  const how = { key: wasClean ? 'cleanShort' : 'notCleanShort' };
  offerConnection({ ...words, key: 'endedLong', meaning: { key: meaning }, how, by: { key: `by_${by}` } });
}

// `what` is what the connection was about to do, see its states.
function showOverdue({ what, unsent }) {
  const words = { key: `overdue_${what}` };
  addLine({ kind: 'overdue', direction: 'none', words, notes: [{ key: 'noteOverdue' }, ...notesOfUnsent(unsent)] });
  setText(byId('status'), words.key);
  offerConnection({ key: 'noteOverdue' });
}

function notesOfUnsent(unsent) {
  return unsent > 0 ? [{ key: 'unsent', n: unsent }] : [];
}

function offerConnection(text) {
  setText(byId('closed-text'), text.key, text);
  byId('closed').hidden = false;
}

// What the user does

function closeFromPage(code, reason) {
  if (connection.state !== 'open' && connection.state !== 'connecting') return false;
  connection.close(code, reason);
  revealLog();
  return true;
}

function closeFromServer(code, reason) {
  if (connection.state !== 'open') return false;
  connection.send(reason ? `/close ${code} ${reason}` : `/close ${code}`);
  revealLog();
  return true;
}

const connect = () => connection.connect(byId('route').value);

function changeRoute() {
  closeFromPage(null, '');
  connect();
}

prepareLanguageMenu(byId('language'));
prepareComposer((data) => connection.send(data));
byId('route').autocomplete = 'off'; // so that the browser does not bring an earlier choice back
preparePanel({ send: (data) => connection.send(data), changeRoute });
prepareCloseForm({ closeFromPage, closeFromServer });
byId('reconnect').addEventListener('click', connect);
byId('clear').addEventListener('click', () => {
  clearLog();
  revealLog();
});
connect();
