// The chat's page: the form to join, the field to write in, the state of the connection, and who is online.
//
// It creates the other modules' objects and passes between them: what the connection tells is shown, and what
// the user does is sent. Left out: how messages reach the server (connection.js), how they look
// (message_list.js), and what survives a reload (outbox.js, storage.js).

import { Connection } from './connection.js';
import { loadEmoji } from './emoji.js';
import { startHeartbeat } from './heartbeat.js';
import { MessageList, makeElement } from './message_list.js';
import { Outbox, TOO_OLD } from './outbox.js';
import { tabStorage } from './storage.js';

const EMOJI_TIMEOUT = 2_000; // ms; messages that are drawn before the emoji have loaded keep their shortcodes

// The address is relative to the page, so that the chat also works behind a proxy that adds a path.
const CHAT_URL = new URL('ws', document.baseURI);
CHAT_URL.protocol = CHAT_URL.protocol === 'https:' ? 'wss:' : 'ws:';

const byId = (id) => document.getElementById(id);
const email = byId('email');
const username = byId('username');
const draft = byId('message');

const emojiTimeout = new Promise((resolve) => setTimeout(resolve, EMOJI_TIMEOUT));
const emoji = Promise.race([loadEmoji(), emojiTimeout]);
let countdownTimer = null;

// Joining

byId('join').addEventListener('submit', (event) => {
  event.preventDefault();
  email.value = email.value.trim();
  username.value = username.value.trim();
  const invalid = [email, username].find((field) => fieldError(field));
  for (const field of [email, username]) field.ariaInvalid = String(field === invalid);
  if (invalid) {
    byId('error').textContent = fieldError(invalid);
    invalid.focus();
  } else {
    join({ email: email.value, username: username.value });
  }
});

// Returns what is wrong with a field, or an empty text. The attribute `maxlength` is not enough: it does not
// stop a script or a browser that fills the field in, and it counts an emoji as two characters.
function fieldError({ id, value, maxLength }) {
  if (value === '') return id === 'email' ? 'You must enter an email' : 'You must choose a username';
  return [...value].length > maxLength ? `The ${id} has more than ${maxLength} characters` : '';
}

async function join(person) {
  tabStorage.set('person', person);
  tabStorage.set('joined', true);
  byId('join').hidden = true;
  byId('chat').hidden = false;
  draft.focus();

  const messages = new MessageList();
  const outbox = new Outbox(person);
  const actions = makeActions(outbox, messages, (key) => connection.retry(key));
  const listener = makeListener(messages, actions);
  const connection = new Connection(CHAT_URL.href, person, outbox, listener);

  showOutbox(outbox, messages, actions);
  listenToDraft(connection, messages);
  listenToWakeUps(connection, messages);
  startHeartbeat(() => connection.check());
  addEventListener('beforeunload', (event) => {
    if (outbox.isAtRisk) event.preventDefault(); // the browser asks before it leaves the page
  });

  await emoji;
  connection.connect();
}

// Returns what the connection tells of what happens, see Connection. `actions` is what makeActions returns.
function makeListener(messages, actions) {
  return {
    onState(name, detail) {
      if (name === 'open') messages.historyLoading();
      if (name === 'closed') tabStorage.delete('joined'); // so that a reload shows the form
      showState(name, detail);
    },
    onMessage: (message) => messages.add(message),
    onGap: () => messages.addGap(),
    onOnline: showOnline,
    onFailed: (key, reason, canRetry) => messages.markFailed(key, reason, actions(canRetry)),
  };
}

// Returns a function that returns the actions for a message that was not sent. If the server refuses a
// message, it would refuse it again, so the author may edit it instead of sending it again. Each action first
// moves the focus to the draft, because the button that was clicked disappears.
function makeActions(outbox, messages, retry) {
  function sendAgain(key) {
    draft.focus();
    if (retry(key)) messages.markPending(key);
  }

  function discard(key) {
    draft.focus();
    const message = outbox.discard(key);
    if (message) messages.remove(key);
    return message;
  }

  function edit(key) {
    const message = discard(key);
    if (!message) return;
    draft.value = draft.value === '' ? message.message : `${draft.value}\n${message.message}`;
    tabStorage.set('draft', draft.value);
  }

  return (canRetry) => [
    canRetry ? { label: 'Send again', act: sendAgain } : { label: 'Edit', act: edit },
    { label: 'Discard', act: discard },
  ];
}

// Shows the messages that an earlier page of the same person has left in the outbox.
function showOutbox(outbox, messages, actions) {
  for (const { refused, ...message } of outbox.failed) {
    messages.addPending(message);
    messages.markFailed(message.key, refused ?? TOO_OLD, actions(refused === undefined));
  }
  for (const message of outbox) messages.addPending(message);
}

// Checks everything when the network is back, or when somebody looks at a page that may have slept.
function listenToWakeUps(connection, messages) {
  const wake = () => {
    connection.wake();
    messages.updateDates();
  };
  addEventListener('online', wake);
  addEventListener('pageshow', wake); // also fired when the browser shows a page again that the user had left
  document.addEventListener('resume', wake); // after the browser had frozen the page
  document.addEventListener('visibilitychange', () => document.hidden || wake());
}

// Sending

function listenToDraft(connection, messages) {
  byId('send').addEventListener('submit', (event) => {
    event.preventDefault();
    sendDraft(connection, messages);
  });
  draft.addEventListener('keydown', (event) => {
    // Enter may also pick a word in an input method. Safari says so by the key code 229 alone.
    const isInputMethod = event.isComposing || event.keyCode === 229;
    if (event.key !== 'Enter' || event.shiftKey || isInputMethod) return;
    event.preventDefault();
    byId('send').requestSubmit();
  });
}

function sendDraft(connection, messages) {
  const text = draft.value.trim();
  draft.focus();
  if (text === '') return;
  const message = connection.send(text);
  byId('send-error').textContent = message ? '' : 'Too much is waiting to be sent already. Try again later.';
  if (!message) return;
  messages.addPending(message);
  draft.value = '';
  tabStorage.delete('draft');
}

// Showing the state of the connection, and who is online

function showState(name, { reason, until } = {}) {
  const because = reason ? `: ${reason}` : '';
  document.body.dataset.state = name;
  byId('status').textContent = {
    connecting: 'Connecting…',
    open: 'Connected',
    waiting: `Connection lost${because}. Reconnecting`,
    closed: `The server closed the connection${because}. Reload the page to join again.`,
  }[name];
  allowSending(name !== 'closed');
  showCountdown(name === 'waiting' ? until : null);
}

function allowSending(isAllowed) {
  const wouldLoseFocus = !isAllowed && byId('send').contains(document.activeElement);
  if (wouldLoseFocus) byId('messages').focus();
  draft.disabled = !isAllowed;
  byId('send-button').disabled = !isAllowed;
}

// Counts the seconds until a time, in ms since 1970; null shows nothing. The countdown is beside the status
// and hidden from screen readers, which would read each second of it aloud.
function showCountdown(until) {
  const showSeconds = () => {
    const seconds = Math.max(0, Math.ceil((until - Date.now()) / 1_000));
    byId('countdown').textContent = ` in ${seconds} s`;
  };
  clearInterval(countdownTimer);
  byId('countdown').textContent = '';
  if (until === null) return;
  showSeconds();
  countdownTimer = setInterval(showSeconds, 1_000);
}

// The server sends the number of all, and the names of some.
function showOnline({ count, usernames }) {
  const items = usernames.map((name) => makeElement('li', '', name || '(no name)'));
  const unnamed = count - usernames.length;
  if (unnamed > 0) items.push(makeElement('li', '', `and ${unnamed} more`));
  const online = byId('online');
  online.hidden = false;
  online.querySelector('h2').textContent = `Online: ${count}`;
  online.querySelector('ul').replaceChildren(...items);
}

// Coming back

// Somebody who reloads the page wants to be back in the chat. A browser that has unloaded the page to save
// memory does the same. Somebody who opens the address anew sees the form, filled in, and may join as another
// person.
function isReturning() {
  if (tabStorage.get('joined') !== true || fieldError(email) || fieldError(username)) return false;
  const { type } = performance.getEntriesByType('navigation')[0] ?? {};
  return type === 'reload' || type === 'back_forward' || document.wasDiscarded;
}

function fillForm() {
  const toText = (value) => (typeof value === 'string' ? value : ''); // storage may hold anything
  const person = tabStorage.get('person') ?? {};
  email.value = toText(person.email);
  username.value = toText(person.username);
  draft.value = toText(tabStorage.get('draft'));
}

fillForm();
draft.addEventListener('input', () => tabStorage.set('draft', draft.value));
if (isReturning()) join({ email: email.value, username: username.value });
