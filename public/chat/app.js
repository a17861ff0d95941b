// The chat's page. It creates the other modules' objects and passes between them: what the connection tells is
// shown, and what the user does is sent.
//
// Left out: everything else. How messages reach the server is in connection.js, how they look in
// message_list.js, and what survives a reload in outbox.js and storage.js.

import { noteMessage, watchAttention } from './attention.js';
import { Composer } from './composer.js';
import { Connection } from './connection.js';
import { loadEmoji } from './emoji.js';
import { startHeartbeat } from './heartbeat.js';
import { prepareForm, showWhoSeesEmail } from './join.js';
import { setPlainText, setText } from './language.js';
import { MessageList } from './message_list.js';
import { Outbox, TOO_OLD } from './outbox.js';
import { showPeople } from './people.js';
import { prepareSettings } from './settings.js';
import { sha256 } from './sha256.js';
import { showState } from './status.js';
import { tabStorage } from './storage.js';

const LOADING_TIMEOUT = 2_000; // ms that the page waits for its emoji and the server's settings

// The address is relative to the page, so that the chat also works behind a proxy that adds a path.
const CHAT_URL = new URL('ws', document.baseURI);
CHAT_URL.protocol = CHAT_URL.protocol === 'https:' ? 'wss:' : 'ws:';

const byId = (id) => document.getElementById(id);
const timeout = new Promise((resolve) => setTimeout(resolve, LOADING_TIMEOUT));
const emoji = Promise.race([loadEmoji(), timeout]);
const serverSettings = loadSettings();
let chat = null; // {messages, outbox}, once somebody has joined
let ownAvatar; // the hash of the user's email
let isForgotten = false;

async function loadSettings() {
  try {
    return await (await fetch('settings.json')).json();
  } catch (error) {
    console.warn('The server does not tell its settings:', error);
    return undefined;
  }
}

async function join(person) {
  byId('join-view').hidden = true;
  byId('chat').hidden = false;
  ownAvatar = sha256(person.email.trim().toLowerCase()); // as the server makes it

  const outbox = new Outbox(person);
  const messages = new MessageList({
    isOwn: (message) => isBy(person, message),
    askForOlder: (id) => connection.askForOlder(id),
  });
  chat = { messages, outbox };
  const composer = new Composer(person, (text) => {
    const message = connection.send(text);
    if (message) messages.addPending(message);
    return message !== null;
  });
  composer.focus();
  serverSettings.then((settings) => composer.setLimit(settings?.max_message));
  const actions = makeActions(outbox, messages, composer, (key) => connection.retry(key));
  const listener = makeListener(person, messages, outbox, composer, actions);
  const connection = new Connection(CHAT_URL.href, person, outbox, listener);

  showOutbox(outbox, messages, actions);
  listenToWakeUps(connection, messages);
  watchAttention({
    onLook: () => {},
    onLeave: () => messages.clearUnreadLine(),
  });
  startHeartbeat(() => connection.check());
  addEventListener('beforeunload', (event) => {
    if (outbox.isAtRisk && !isForgotten) event.preventDefault(); // the browser asks before it leaves the page
  });

  await emoji;
  connection.connect();
}

// Returns whether a person has written a message. A server that hides emails leaves the hash.
function isBy({ email, username }, message) {
  if (message.username !== username) return false;
  return message.email === '' ? message.avatar === ownAvatar : message.email === email;
}

// Returns what the connection tells of what happens, see Connection. `actions` is what makeActions returns.
function makeListener(person, messages, outbox, composer, actions) {
  let connections = 0; // what comes at the beginning of a later one was said while the user was here
  return {
    onState(name, detail) {
      if (name === 'open') {
        connections += 1;
        messages.historyLoading();
      } else {
        messages.giveUpOlder();
        clearSlowed();
      }
      if (name === 'closed') tabStorage.delete('joined'); // so that a reload shows the form
      showState(name, detail);
      const isFocusLost = composer.allow(name !== 'closed');
      if (isFocusLost) byId('messages').focus();
    },
    onMessage(message, wasSent) {
      if (wasSent) ownAvatar = message.avatar; // the server may make it otherwise
      if (outbox.isEmpty) clearSlowed();
      const isHistory = connections === 1 && messages.isHistoryLoading;
      const isUnread = !wasSent && !isBy(person, message) && !isHistory;
      messages.add(message, isUnread && noteMessage(message));
    },
    onGap: () => messages.addGap(),
    onOlder: (answer) => messages.addOlder(answer),
    onOnline: showPeople,
    onSlowed: (rate) => setText(byId('slowed'), 'slowed', { n: rate }),
    onFailed(key, reason, canRetry) {
      if (outbox.isEmpty) clearSlowed();
      messages.markFailed(key, reason, actions(canRetry));
    },
  };
}

function clearSlowed() {
  setPlainText(byId('slowed'), '');
}

// Returns a function that returns the actions for a message that was not sent. If the server refuses a
// message, it would refuse it again, so the author may edit it instead of sending it again. Each action first
// moves the focus to the field, because the button that was clicked disappears.
function makeActions(outbox, messages, composer, retry) {
  function sendAgain(key) {
    composer.focus();
    if (retry(key)) messages.markPending(key);
  }

  function discard(key) {
    composer.focus();
    const message = outbox.discard(key);
    if (message) messages.remove(key);
    return message;
  }

  function edit(key) {
    const message = discard(key);
    if (message) composer.text = [composer.text, message.message].filter(Boolean).join('\n');
  }

  return (canRetry) => [
    canRetry ? { label: 'tryAgain', act: sendAgain } : { label: 'edit', act: edit },
    { label: 'delete', act: discard },
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

prepareSettings({
  onLanguage: () => chat?.messages.updateLanguage(),
  onForget() {
    isForgotten = true;
    location.reload();
  },
});
for (const settings of [Promise.race([serverSettings, timeout]), serverSettings])
  settings.then((known) => showWhoSeesEmail(known?.hide_emails));
prepareForm(join);
