// The list of messages: drawn once a frame however many arrive, and followed only by a reader at its end.

import { drawAvatar } from './avatar.js';
import { withEmoji } from './emoji.js';

const KEPT = 1_000; // messages on the page
const NEAR = 40; // px from the end that count as being there
const LATEST = 100; // ms until what waits is drawn, frame or no frame
const QUIET = 300; // ms without a message after which the past counts as loaded
const PAST = 3_000; // ms after which it does even in a chat that is never quiet

const clock = new Intl.DateTimeFormat([], { hour: '2-digit', minute: '2-digit' });
const calendar = new Intl.DateTimeFormat([], { dateStyle: 'medium', timeStyle: 'short' });

export function element(tag, className, text = '') {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text; // the only way text gets into the page: never as markup
  return made;
}

export class MessageList {
  #log = document.getElementById('log');
  #list = document.getElementById('messages');
  #follow = document.getElementById('follow');
  #end = 0; // where the list was scrolled to when last at its end; Infinity once the reader has left it
  #waiting = []; // what to draw next, together
  #own = new Map(); // key → item whose copy has not come back
  #ownHash = '';
  #quiet = null;
  #pastEnds = 0;

  constructor() {
    this.#list.addEventListener('scroll', () => {
      if (this.#following()) this.#follow.hidden = true;
    });
    this.#follow.addEventListener('click', () => this.#toEnd());
    new ResizeObserver(() => this.#following() && this.#toEnd()).observe(this.#list);
  }

  // A connection opened, and the past comes in. Screen readers would read all of it aloud, so the log is
  // not live until it is there; nothing marks its end but a pause.
  loading() {
    this.#pastEnds = performance.now() + PAST;
    this.#log.setAttribute('aria-live', 'off');
    this.#log.setAttribute('aria-busy', 'true');
    this.#awaitQuiet();
  }

  #awaitQuiet() {
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => {
      this.#quiet = null;
      this.#log.setAttribute('aria-live', 'polite');
      this.#log.removeAttribute('aria-busy');
    }, Math.min(QUIET, this.#pastEnds - performance.now()));
  }

  add(message) {
    if (this.#quiet !== null) this.#awaitQuiet();
    this.#draw((following) => {
      const own = this.#own.get(message.key);
      const item = own ?? this.#item(message);
      if (!own) this.#follow.hidden = following;
      // Where the log has it: after all that was said, before all that is still on its way. An item that
      // is there already is not moved, or a screen reader would read it twice.
      const place = this.#firstPending();
      if (item !== place) this.#list.insertBefore(item, place);
      item.classList.remove('pending', 'sent', 'failed');
      this.#setTime(item, message.id);
      if (!own) return;
      this.#own.delete(message.key);
      this.#ownHash = message.avatar;
      drawAvatar(item.firstChild, message.username, message.avatar);
    });
  }

  addPending(key, message) {
    this.#draw(() => {
      const item = this.#item({ ...message, avatar: this.#ownHash });
      item.classList.add('pending');
      item.querySelector('.time').textContent = 'sending…';
      this.#own.set(key, item);
      this.#list.append(item);
    });
    this.#end = 0; // who speaks wants to see it
  }

  // Logged, though its copy, and with it the time, was not among what the server replayed.
  sent(key) {
    this.#mark(key, 'sent', 'sent');
  }

  // Its copy may still come: see Connection.
  failed(key, reason) {
    this.#mark(key, 'failed', `not sent: ${reason}`);
  }

  #mark(key, state, words) {
    this.#draw(() => {
      this.#own.get(key).classList.replace('pending', state);
      this.#own.get(key).querySelector('.time').textContent = words;
    });
  }

  addGap() {
    this.#draw(() => {
      const gap = element('li', 'gap', 'Older messages are left out here');
      this.#list.insertBefore(gap, this.#firstPending());
    });
  }

  #firstPending() {
    return [...this.#own.values()].find((item) => item.matches('ol > .pending')) ?? null;
  }

  #item({ username, email, message, avatar }) {
    const item = element('li', 'message');
    const portrait = element('span', 'avatar');
    portrait.ariaHidden = 'true';
    drawAvatar(portrait, username, avatar);
    const name = element('span', 'name', username || '(no name)');
    name.title = email;
    const head = element('div', '');
    head.append(name, ' ', element('time', 'time'));
    item.append(portrait, head, element('div', 'text', withEmoji(message)));
    return item;
  }

  #setTime(item, id) {
    const date = new Date(parseInt(id, 10));
    const time = item.querySelector('.time');
    const today = date.toDateString() === new Date().toDateString();
    time.dateTime = date.toISOString();
    time.textContent = (today ? clock : calendar).format(date);
  }

  // At the next frame, so that a flood costs one layout; but a page behind others gets few frames or none.
  #draw(change) {
    this.#waiting.push(change);
    if (this.#waiting.length > 1) return;
    requestAnimationFrame(() => this.#drawAll());
    setTimeout(() => this.#drawAll(), LATEST);
  }

  #drawAll() {
    if (this.#waiting.length === 0) return;
    const following = this.#following();
    for (const change of this.#waiting.splice(0)) change(following);
    while (this.#list.childElementCount > KEPT) this.#list.firstElementChild.remove();
    if (following) this.#toEnd();
  }

  // A list that became lower shows its end no more, though its reader has not moved.
  #following() {
    const { scrollTop, scrollHeight, clientHeight } = this.#list;
    if (scrollHeight - clientHeight - scrollTop < NEAR) this.#end = scrollTop;
    else if (scrollTop < this.#end) this.#end = Infinity;
    return this.#end < Infinity;
  }

  #toEnd() {
    this.#follow.hidden = true;
    this.#list.scrollTop = this.#list.scrollHeight;
    this.#end = this.#list.scrollTop;
  }
}
