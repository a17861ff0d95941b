// The page: joining, saying, and telling what state things are in.

import { Connection } from './connection.js';
import { loadEmoji } from './emoji.js';
import { MessageList, element } from './messages.js';

const EMOJI_PATIENCE = 2_000; // ms; what is drawn before the table is here keeps its short names
const ADDRESS = `${location.protocol === 'https:' ? 'wss:' : 'ws:'}//${location.host}/ws`;

const byId = (id) => document.getElementById(id);
const [email, username, draft] = [byId('email'), byId('username'), byId('message')];
const emoji = Promise.race([loadEmoji(), new Promise((done) => setTimeout(done, EMOJI_PATIENCE))]);
let countdown = null;

let memory = {};
try {
  memory = sessionStorage;
} catch {} // forbidden here: the fields start empty

email.value = memory.email ?? '';
username.value = memory.username ?? '';

byId('join').addEventListener('submit', (event) => {
  event.preventDefault();
  email.value = email.value.trim();
  username.value = username.value.trim();
  const missing = [email, username].find((field) => field.value === '');
  email.ariaInvalid = String(missing === email);
  username.ariaInvalid = String(missing === username);
  if (missing) {
    byId('error').textContent =
      missing === email ? 'You must enter an email' : 'You must choose a username';
    missing.focus();
  } else {
    join({ email: email.value, username: username.value });
  }
});

async function join(person) {
  Object.assign(memory, person);
  byId('join').hidden = true;
  byId('chat').hidden = false;
  draft.focus();

  const messages = new MessageList();
  const connection = new Connection(ADDRESS, person, {
    state(name, detail) {
      if (name === 'open') messages.loading();
      showState(name, detail);
    },
    message: (message) => messages.add(message),
    gap: () => messages.addGap(),
    online: showOnline,
    sent: (key) => messages.sent(key),
    failed: (key, reason) => messages.failed(key, reason),
  });

  byId('send').addEventListener('submit', (event) => {
    event.preventDefault();
    const text = draft.value.trim();
    draft.focus();
    if (text === '') return;
    messages.addPending(connection.send(text), { ...person, message: text });
    draft.value = '';
  });
  draft.addEventListener('keydown', (event) => {
    // The Enter that picks a word in an input method sends nothing; Safari tells it by 229 alone.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    byId('send').requestSubmit();
  });
  addEventListener('online', () => connection.wake());
  document.addEventListener('visibilitychange', () => document.hidden || connection.wake());
  addEventListener('beforeunload', (event) => {
    if (connection.unsent > 0) event.preventDefault();
  });

  await emoji;
  connection.connect();
}

function showState(name, { reason, until } = {}) {
  const because = reason ? `: ${reason}` : '';
  document.body.dataset.state = name;
  byId('status').textContent = {
    connecting: 'connecting…',
    open: 'connected',
    waiting: `connection lost${because}, reconnecting`,
    closed: `closed by the server${because}. Reload the page to join again`,
  }[name];
  draft.disabled = byId('send-button').disabled = name === 'closed';

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
