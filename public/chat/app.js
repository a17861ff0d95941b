// The page: joining, saying, and telling what state things are in.

import { Connection } from './connection.js';
import { loadEmoji } from './emoji.js';
import { MessageList, element } from './messages.js';
import { Outbox, TOO_OLD } from './outbox.js';
import { startPulse } from './pulse.js';
import { tabStorage } from './storage.js';

const EMOJI_PATIENCE = 2_000; // ms; what is drawn before the table is here keeps its short names
const ADDRESS = new URL('ws', document.baseURI); // beside the page, wherever a proxy has put it
ADDRESS.protocol = ADDRESS.protocol === 'https:' ? 'wss:' : 'ws:';

const byId = (id) => document.getElementById(id);
const [email, username, draft] = [byId('email'), byId('username'), byId('message')];
const emoji = Promise.race([loadEmoji(), new Promise((done) => setTimeout(done, EMOJI_PATIENCE))]);
let countdown = null;

// Joining

byId('join').addEventListener('submit', (event) => {
  event.preventDefault();
  email.value = email.value.trim();
  username.value = username.value.trim();
  const wrong = [email, username].find((field) => fault(field));
  for (const field of [email, username]) field.ariaInvalid = String(field === wrong);
  if (wrong) {
    byId('error').textContent = fault(wrong);
    wrong.focus();
  } else {
    join({ email: email.value, username: username.value });
  }
});

// The attribute stops who types, and not what a script or a browser fills in; and it counts an emoji twice.
function fault({ id, value, maxLength }) {
  if (value === '') return id === 'email' ? 'You must enter an email' : 'You must choose a username';
  return [...value].length > maxLength ? `The ${id} has more than ${maxLength} characters` : '';
}

async function join(person) {
  tabStorage.set('person', person);
  tabStorage.set('joined', true);
  byId('join').hidden = true;
  byId('chat').hidden = false;
  draft.focus();

  const outbox = new Outbox(person);
  const messages = new MessageList();
  const connection = new Connection(ADDRESS.href, person, outbox, {
    state(name, detail) {
      if (name === 'open') messages.loading();
      if (name === 'closed') tabStorage.delete('joined'); // a reload is to bring the form
      showState(name, detail);
    },
    message: (message) => messages.add(message),
    gap: () => messages.addGap(),
    online: showOnline,
    failed: (key, reason, again) => messages.failed(key, reason, actions(again)),
  });
  const actions = actionsOnFailed(outbox, messages, connection);

  takeUp(outbox, messages, actions);
  listenToDraft(connection, messages);
  keepAwake(connection, messages);
  addEventListener('beforeunload', (event) => {
    if (outbox.isAtRisk) event.preventDefault();
  });

  await emoji;
  connection.connect();
}

// What the author of a message that was not sent may do: a function that makes the buttons. What the server
// refuses for what it is would be refused again, and is better changed. Each focuses the draft first, as the
// button that was clicked is about to go.
function actionsOnFailed(outbox, messages, connection) {
  function sendAgain(key) {
    draft.focus();
    if (connection.retry(key)) messages.sendAgain(key);
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

  return (again) => [again ? ['Send again', sendAgain] : ['Edit', edit], ['Discard', discard]];
}

// What an earlier page of the same person left unsent.
function takeUp(outbox, messages, actions) {
  for (const { refused, ...message } of outbox.givenUp) {
    messages.addPending(message);
    messages.failed(message.key, refused ?? TOO_OLD, actions(refused === undefined));
  }
  for (const message of outbox) messages.addPending(message);
}

function keepAwake(connection, messages) {
  const wake = () => {
    connection.wake();
    messages.lookAtCalendar();
  };
  addEventListener('online', wake);
  addEventListener('pageshow', wake); // also out of the browser's cache of pages that were left
  document.addEventListener('resume', wake); // after a freeze
  document.addEventListener('visibilitychange', () => document.hidden || wake());
  startPulse(() => connection.beat());
}

// Saying

function listenToDraft(connection, messages) {
  byId('send').addEventListener('submit', (event) => {
    event.preventDefault();
    const text = draft.value.trim();
    draft.focus();
    if (text === '') return;
    const message = connection.send(text);
    byId('send-error').textContent = message ? '' : 'Too much waits to be sent already. Try again later';
    if (!message) return;
    messages.addPending(message);
    draft.value = '';
    tabStorage.delete('draft');
  });
  draft.addEventListener('keydown', (event) => {
    // The Enter that picks a word in an input method sends nothing; Safari tells it by 229 alone.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    byId('send').requestSubmit();
  });
}

// What things are like

function showState(name, { reason, until } = {}) {
  const because = reason ? `: ${reason}` : '';
  document.body.dataset.state = name;
  byId('status').textContent = {
    connecting: 'connecting…',
    open: 'connected',
    waiting: `connection lost${because}, reconnecting`,
    closed: `closed by the server${because}. Reload the page to join again`,
  }[name];
  const isClosed = name === 'closed';
  if (isClosed && byId('send').contains(document.activeElement)) byId('messages').focus();
  draft.disabled = isClosed;
  byId('send-button').disabled = isClosed;

  // Beside the status and hidden from screen readers, which would read every second of it.
  const tick = () => {
    byId('countdown').textContent = ` in ${Math.max(0, Math.ceil((until - Date.now()) / 1_000))} s`;
  };
  clearInterval(countdown);
  byId('countdown').textContent = '';
  if (name !== 'waiting') return;
  tick();
  countdown = setInterval(tick, 1_000);
}

function showOnline({ count, usernames }) {
  const names = usernames.map((name) => element('li', '', name || '(no name)'));
  if (count > usernames.length) names.push(element('li', '', `and ${count - usernames.length} more`));
  const online = byId('online');
  online.hidden = false;
  online.querySelector('h2').textContent = `${count} here`;
  online.querySelector('ul').replaceChildren(...names);
}

// Coming back

// Who reloads the page of a chat wants to be back in it, and so does a browser that has put the page away
// to save memory. Who opens the address anew gets the form, filled in, and may join as somebody else.
function comesBack() {
  const { type } = performance.getEntriesByType('navigation')[0] ?? {};
  const isOldPage = type === 'reload' || type === 'back_forward' || document.wasDiscarded;
  return isOldPage && tabStorage.get('joined') === true && [email, username].every((field) => !fault(field));
}

const asText = (value) => (typeof value === 'string' ? value : '');
const remembered = tabStorage.get('person') ?? {};
email.value = asText(remembered.email);
username.value = asText(remembered.username);
draft.value = asText(tabStorage.get('draft'));
draft.addEventListener('input', () => tabStorage.set('draft', draft.value));
if (comesBack()) join({ email: email.value, username: username.value });
