// The list of messages on the page: it draws each in its place, marks those that are on their way or were not
// sent, and shows new ones at once to a reader who is at the end.
//
// The list has three parts, in this order: messages that the server has numbered; the user's own that are on
// their way (pending); and the user's own that were not sent (failed). The last two stay in sight at the end,
// and the oldest of the first part are removed when there are too many.
//
// Left out: why a message has failed (connection.js, outbox.js), pictures (avatar.js) and emoji (emoji.js).

import { drawAvatar } from './avatar.js';
import { replaceShortcodes } from './emoji.js';
import { timeOf } from './message.js';

const MAX_ITEMS = 1_000;
const NEAR_END = 40; // px; a reader who is nearer to the end of the list counts as being there
const MAX_DRAW_DELAY = 100; // ms; a browser draws few frames or none for a page that is hidden
const HISTORY_PAUSE = 300; // ms without a message, after which the history counts as loaded
const MAX_HISTORY_TIME = 3_000; // ms after which it counts as loaded even if messages never pause
const DATE_CHECK_INTERVAL = 20_000; // ms; no timer is sure to fire at midnight
const MAX_NAME = 128; // characters; servers refuse more than 64, but a history from elsewhere may have more
const MAX_TITLE = 254; // characters
const MAX_LABEL = 40; // characters of a message in the label of its buttons, for screen readers
const LEFT_THE_END = Infinity;

const timeFormat = new Intl.DateTimeFormat([], { hour: '2-digit', minute: '2-digit' });
const dateFormat = new Intl.DateTimeFormat([], { dateStyle: 'medium', timeStyle: 'short' });

// Text enters the page only here, and never as markup.
export function makeElement(tag, className, text = '') {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

export class MessageList {
  #log = document.getElementById('log');
  #list = document.getElementById('messages');
  #newMessages = document.getElementById('new-messages');
  // How far the list was scrolled when its reader was last at the end, in px; or LEFT_THE_END.
  #scrollTopAtEnd = 0;
  #changes = []; // what is to be drawn in the next frame, as {change, fallback}
  #ownItems = new Map(); // key → item that is pending or failed; those of one state in the order of the list
  #ownAvatar = ''; // the hash from the user's last message that came back
  #today = new Date().toDateString();
  #historyTimer = null; // runs while the history is loading
  #historyEndsBy = 0; // by performance.now()

  constructor() {
    this.#list.addEventListener('scroll', () => {
      if (this.#isReaderAtEnd()) this.#hideNewMessages();
    });
    this.#newMessages.addEventListener('click', () => this.#scrollToEnd());
    const observer = new ResizeObserver(() => this.#isReaderAtEnd() && this.#scrollToEnd());
    observer.observe(this.#list);
    setInterval(() => this.updateDates(), DATE_CHECK_INTERVAL);
  }

  // Messages of today show a time alone. Call this after midnight, when they need a date as well.
  updateDates() {
    const today = new Date().toDateString();
    if (today === this.#today) return;
    this.#today = today;
    this.#draw(() => {
      this.historyLoading(); // up to a thousand dates change, and a screen reader would read them all aloud
      const times = this.#list.querySelectorAll('time[datetime]');
      for (const time of times) showTime(time, new Date(time.dateTime));
    });
  }

  // Call it when a connection has opened and the history follows. A screen reader would read all of the
  // history aloud, so the log is not live while it loads. The server does not say where the history ends: a
  // pause does.
  historyLoading() {
    this.#historyEndsBy = performance.now() + MAX_HISTORY_TIME;
    this.#log.setAttribute('aria-live', 'off');
    this.#log.setAttribute('aria-busy', 'true');
    this.#awaitPause();
  }

  #awaitPause() {
    clearTimeout(this.#historyTimer);
    const delay = Math.min(HISTORY_PAUSE, this.#historyEndsBy - performance.now());
    this.#historyTimer = setTimeout(() => {
      this.#historyTimer = null;
      this.#log.setAttribute('aria-live', 'polite');
      this.#log.removeAttribute('aria-busy');
    }, delay);
  }

  // Adds a message that the server has numbered, as decodeMessage returns it. If it is the copy of one of the
  // user's own, that one's item becomes a numbered one.
  add(message) {
    if (this.#historyTimer !== null) this.#awaitPause();
    this.#draw(
      (isReaderAtEnd) => this.#addNumbered(message, isReaderAtEnd),
      () => this.#addAsPlainText(message),
    );
  }

  #addNumbered(message, isReaderAtEnd) {
    const ownItem = this.#ownItems.get(message.key);
    const item = ownItem ?? makeItem(message);
    this.#removeState(item);
    showTime(item.querySelector('.time'), timeOf(message.id));
    this.#insertNumbered(item);
    if (ownItem) {
      this.#ownItems.delete(message.key);
      this.#ownAvatar = message.avatar;
      drawAvatar(item.firstChild, message.username, message.avatar);
    } else if (isReaderAtEnd) {
      this.#hideNewMessages();
    } else {
      this.#newMessages.hidden = false;
    }
  }

  // Inserts an item after all numbered ones. One that is there already is not moved, as a screen reader would
  // read it a second time.
  #insertNumbered(item) {
    const next = this.#firstItem('pending') ?? this.#firstItem('failed');
    if (item !== next) this.#list.insertBefore(item, next);
  }

  // For a message that cannot be drawn as others are: its text matters more than how it looks.
  #addAsPlainText({ key, username, message }) {
    this.#removeOwn(key);
    this.#insertNumbered(makeElement('li', 'message plain', `${username}: ${message}`));
  }

  // Adds a message of the user's own that is on its way, {email, username, message, key}, and scrolls to it.
  addPending(message) {
    this.#draw(() => {
      const item = makeItem({ ...message, avatar: this.#ownAvatar });
      this.#markPending(message.key, item);
    });
    this.#scrollTopAtEnd = 0; // the reader counts as being at the end, wherever the list is scrolled
  }

  // Marks a failed message as being on its way again.
  markPending(key) {
    this.#draw(() => {
      const item = this.#ownItems.get(key);
      if (item) this.#markPending(key, item);
    });
  }

  // Removes a failed message, because its author has discarded it.
  remove(key) {
    this.#draw(() => this.#removeOwn(key));
  }

  // Marks a pending message as not sent. Each action, {label, act}, gets a button that calls `act` with the
  // key. The server's copy can still arrive later, see Connection.
  markFailed(key, reason, actions) {
    this.#draw(() => {
      const item = this.#ownItems.get(key);
      if (!item) return; // the message could not be drawn
      this.#setState(key, item, 'failed', `Not sent: ${reason}`);
      this.#list.append(item);
      item.querySelector('.head').append(makeButtons(key, item, actions));
    });
  }

  // Adds a note at the place where the server has left messages out.
  addGap() {
    const text = 'Some older messages are not shown here';
    this.#draw(() => this.#insertNumbered(makeElement('li', 'gap', text)));
  }

  #markPending(key, item) {
    this.#setState(key, item, 'pending', 'Sending…');
    this.#list.insertBefore(item, this.#firstItem('failed'));
  }

  // Makes the item the last one of its state in #ownItems, as its caller does in the list.
  #setState(key, item, state, text) {
    this.#removeState(item);
    item.classList.add(state);
    item.querySelector('.time').textContent = text;
    this.#ownItems.delete(key);
    this.#ownItems.set(key, item);
  }

  #removeState(item) {
    this.#keepFocus(item);
    item.classList.remove('pending', 'failed');
    item.querySelector('.actions')?.remove();
  }

  #removeOwn(key) {
    const item = this.#ownItems.get(key);
    if (!item) return;
    this.#keepFocus(item);
    item.remove();
    this.#ownItems.delete(key);
  }

  // Moves the focus out of an element that is about to go. Without this, a keyboard's user would be thrown
  // back to the top of the page.
  #keepFocus(element) {
    if (element.contains(document.activeElement)) this.#list.focus({ preventScroll: true });
  }

  #hideNewMessages() {
    this.#keepFocus(this.#newMessages);
    this.#newMessages.hidden = true;
  }

  // Returns the first item of the state that is in the list, or null.
  #firstItem(state) {
    const items = [...this.#ownItems.values()];
    return items.find((item) => item.matches(`ol > .${state}`)) ?? null;
  }

  // Makes a change when the next frame is drawn, so that many messages at once cost one layout. `fallback` is
  // called if the change throws.
  #draw(change, fallback = () => {}) {
    this.#changes.push({ change, fallback });
    if (this.#changes.length > 1) return;
    requestAnimationFrame(() => this.#drawAll());
    setTimeout(() => this.#drawAll(), MAX_DRAW_DELAY);
  }

  #drawAll() {
    if (this.#changes.length === 0) return;
    const isReaderAtEnd = this.#isReaderAtEnd();
    for (const { change, fallback } of this.#changes.splice(0)) {
      const succeeded = attempt(() => change(isReaderAtEnd));
      if (!succeeded) attempt(fallback);
    }
    while (this.#list.childElementCount > MAX_ITEMS) this.#list.firstElementChild.remove();
    if (isReaderAtEnd) this.#scrollToEnd();
  }

  // When the list gets lower, for example because a keyboard appears on the screen, its end moves out of
  // sight though the reader has not scrolled. So the reader has left the end only if the list is scrolled
  // further up than before.
  #isReaderAtEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.#list;
    if (scrollHeight - clientHeight - scrollTop < NEAR_END) this.#scrollTopAtEnd = scrollTop;
    else if (scrollTop < this.#scrollTopAtEnd) this.#scrollTopAtEnd = LEFT_THE_END;
    return this.#scrollTopAtEnd !== LEFT_THE_END;
  }

  #scrollToEnd() {
    this.#hideNewMessages();
    this.#list.scrollTop = this.#list.scrollHeight;
    this.#scrollTopAtEnd = this.#list.scrollTop;
  }
}

// Returns whether the action succeeded. One that throws must not prevent others.
function attempt(action) {
  try {
    action();
    return true;
  } catch (error) {
    console.error(error);
    return false;
  }
}

function makeItem({ username, email, message, avatar }) {
  const item = makeElement('li', 'message');
  const portrait = makeElement('span', 'avatar');
  portrait.ariaHidden = 'true';
  drawAvatar(portrait, username, avatar);
  const name = makeElement('span', 'name', shorten(username, MAX_NAME) || '(no name)');
  name.title = shorten(email, MAX_TITLE);
  const head = makeElement('div', 'head');
  head.append(name, ' ', makeElement('time', 'time'));
  item.append(portrait, head, makeElement('div', 'text', replaceShortcodes(message)));
  return item;
}

// A screen reader gets the beginning of the message with each button, to tell which message it is for.
function makeButtons(key, item, actions) {
  const text = shorten(item.querySelector('.text').textContent, MAX_LABEL);
  const group = makeElement('span', 'actions');
  for (const { label, act } of actions) {
    const button = makeElement('button', '', label);
    button.type = 'button';
    button.ariaLabel = `${label}: ${text}`;
    button.addEventListener('click', () => act(key));
    group.append(button);
  }
  return group;
}

// Counts code points, so that no emoji is cut in half.
function shorten(text, maxLength) {
  if (text.length <= maxLength) return text;
  const characters = [...text];
  if (characters.length <= maxLength) return text;
  return `${characters.slice(0, maxLength - 1).join('')}…`;
}

// Takes a Date, or null for a message without a time.
function showTime(time, date) {
  if (date === null) {
    time.removeAttribute('datetime');
    time.textContent = '';
    return;
  }
  const isToday = date.toDateString() === new Date().toDateString();
  time.dateTime = date.toISOString();
  time.textContent = (isToday ? timeFormat : dateFormat).format(date);
}
