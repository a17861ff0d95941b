// The list of messages: drawn once a frame however many arrive, and followed only by a reader at its end.

import { drawAvatar } from './avatar.js';
import { withEmoji } from './emoji.js';

const KEPT = 1_000; // messages on the page
const NEAR = 40; // px from the end that count as being there
const LATEST = 100; // ms until what waits is drawn, also where the browser draws no frame
const QUIET = 300; // ms without a message after which the past counts as loaded
const PAST = 3_000; // ms after which it does even in a chat that is never quiet
const LONGEST_NAME = 128; // characters; servers refuse more than half of it, but an old history may have more
const LONGEST_TITLE = 254;
const LONGEST_LABEL = 40; // characters of a message that tell a screen reader which one a button is for
const LAST_TIME = Date.UTC(10_000); // ms; a later time is somebody's mistake and not shown
const CALENDAR = 20_000; // ms between two looks at it: no timer is sure to fire at midnight

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
  // key → item whose copy has not come back. Those of one state are in the order of the list.
  #own = new Map();
  #ownHash = '';
  #today = new Date().toDateString();
  #quiet = null;
  #pastEnds = 0;

  constructor() {
    this.#list.addEventListener('scroll', () => {
      if (this.#following()) this.#hideFollow();
    });
    this.#follow.addEventListener('click', () => this.#toEnd());
    new ResizeObserver(() => this.#following() && this.#toEnd()).observe(this.#list);
    setInterval(() => this.lookAtCalendar(), CALENDAR);
  }

  // After midnight, what was said today was said yesterday, and a time without its date would mislead.
  lookAtCalendar() {
    const today = new Date().toDateString();
    if (today === this.#today) return;
    this.#today = today;
    this.#draw(() => {
      this.loading(); // the dates, up to a thousand, are not to be read aloud either
      const times = this.#list.querySelectorAll('time[datetime]');
      for (const time of times) showTime(time, new Date(time.dateTime));
    });
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
    this.#draw(
      (following) => this.#place(message, following),
      () => this.#placePlainly(message),
    );
  }

  #place(message, following) {
    const own = this.#own.get(message.key);
    const item = own ?? makeItem(message);
    this.#clear(item);
    showTime(item.querySelector('.time'), timeOf(message.id));
    this.#insert(item);
    if (!own) {
      if (following) this.#hideFollow();
      else this.#follow.hidden = false;
      return;
    }
    this.#own.delete(message.key);
    this.#ownHash = message.avatar;
    drawAvatar(item.firstChild, message.username, message.avatar);
  }

  // Where the log has it: after all that was said, before all that is still on its way or was not sent. An
  // item that is there already is not moved, or a screen reader would read it twice.
  #insert(item) {
    const place = this.#firstOwn('pending') ?? this.#firstOwn('failed');
    if (item !== place) this.#list.insertBefore(item, place);
  }

  // For a message that can't be drawn as others are: what it says is worth more than how it looks.
  #placePlainly({ key, username, message }) {
    this.#remove(key);
    this.#insert(element('li', 'message plain', `${username}: ${message}`));
  }

  addPending(message) {
    this.#draw(() => {
      this.#markPending(message.key, makeItem({ ...message, avatar: this.#ownHash }));
    });
    this.#end = 0; // who speaks wants to see it
  }

  // What has failed is on its way once more.
  sendAgain(key) {
    this.#draw(() => {
      const item = this.#own.get(key);
      if (item) this.#markPending(key, item);
    });
  }

  // What has failed is not wanted any more.
  remove(key) {
    this.#draw(() => this.#remove(key));
  }

  // Its copy may still come: see Connection. The actions are [label, function of the key], a button for each.
  failed(key, reason, actions) {
    this.#draw(() => {
      const item = this.#own.get(key);
      if (!item) return; // it could not be drawn
      this.#mark(key, item, 'failed', `not sent: ${reason}`);
      this.#list.append(item);
      const text = shortened(item.querySelector('.text').textContent, LONGEST_LABEL);
      const buttons = actions.map(([label, act]) => {
        const button = element('button', '', label);
        button.type = 'button';
        button.ariaLabel = `${label}: ${text}`;
        button.addEventListener('click', () => act(key));
        return button;
      });
      const group = element('span', 'actions');
      group.append(...buttons);
      item.querySelector('.head').append(group);
    });
  }

  #markPending(key, item) {
    this.#mark(key, item, 'pending', 'sending…');
    this.#list.insertBefore(item, this.#firstOwn('failed'));
  }

  // The newest of a state is the last of it in #own, as it is in the list.
  #mark(key, item, state, says) {
    this.#clear(item);
    item.classList.add(state);
    item.querySelector('.time').textContent = says;
    this.#own.delete(key);
    this.#own.set(key, item);
  }

  // Makes an item like those that the server has numbered.
  #clear(item) {
    this.#keepFocus(item);
    item.classList.remove('pending', 'failed');
    item.querySelector('.actions')?.remove();
  }

  #remove(key) {
    const item = this.#own.get(key);
    if (!item) return;
    this.#keepFocus(item);
    item.remove();
    this.#own.delete(key);
  }

  // Of what is about to go. Who works by keyboard would else be thrown back to the top of the page.
  #keepFocus(element) {
    if (element.contains(document.activeElement)) this.#list.focus({ preventScroll: true });
  }

  #hideFollow() {
    this.#keepFocus(this.#follow);
    this.#follow.hidden = true;
  }

  addGap() {
    this.#draw(() => this.#insert(element('li', 'gap', 'Older messages are left out here')));
  }

  // Those on their way stand at the end of the list, and after them those that were not sent, so that they
  // are in sight and the oldest of the others go first when there are too many.
  #firstOwn(state) {
    return [...this.#own.values()].find((item) => item.matches(`ol > .${state}`)) ?? null;
  }

  // At the next frame, so that a flood costs one layout; but a page behind others gets few frames or none.
  #draw(change, instead = () => {}) {
    this.#waiting.push({ change, instead });
    if (this.#waiting.length > 1) return;
    requestAnimationFrame(() => this.#drawAll());
    setTimeout(() => this.#drawAll(), LATEST);
  }

  // A change that fails costs none of the others.
  #drawAll() {
    if (this.#waiting.length === 0) return;
    const following = this.#following();
    for (const { change, instead } of this.#waiting.splice(0)) {
      attempt(() => change(following)) || attempt(instead);
    }
    while (this.#list.childElementCount > KEPT) this.#list.firstElementChild.remove();
    if (following) this.#toEnd();
  }

  // Where the list becomes less high, such as by a keyboard on the screen, its end moves out of sight though
  // its reader has not scrolled. So a reader has left the end only if the list is scrolled further up.
  #following() {
    const { scrollTop, scrollHeight, clientHeight } = this.#list;
    if (scrollHeight - clientHeight - scrollTop < NEAR) this.#end = scrollTop;
    else if (scrollTop < this.#end) this.#end = Infinity;
    return this.#end < Infinity;
  }

  #toEnd() {
    this.#hideFollow();
    this.#list.scrollTop = this.#list.scrollHeight;
    this.#end = this.#list.scrollTop;
  }
}

// Tells whether it went well.
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
  const item = element('li', 'message');
  const portrait = element('span', 'avatar');
  portrait.ariaHidden = 'true';
  drawAvatar(portrait, username, avatar);
  const name = element('span', 'name', shortened(username, LONGEST_NAME) || '(no name)');
  name.title = shortened(email, LONGEST_TITLE);
  const head = element('div', 'head');
  head.append(name, ' ', element('time', 'time'));
  item.append(portrait, head, element('div', 'text', withEmoji(message)));
  return item;
}

// By code point, so that no emoji is cut in half.
function shortened(text, most) {
  const characters = text.length > most ? [...text] : [];
  return characters.length > most ? `${characters.slice(0, most - 1).join('')}…` : text;
}

// An id begins with milliseconds since 1970, or says nothing that is a time: then null.
function timeOf(id) {
  const milliseconds = parseInt(id, 10);
  return milliseconds >= 0 && milliseconds < LAST_TIME ? new Date(milliseconds) : null;
}

function showTime(time, date) {
  if (date === null) {
    time.removeAttribute('datetime');
    time.textContent = '';
    return;
  }
  const today = date.toDateString() === new Date().toDateString();
  time.dateTime = date.toISOString();
  time.textContent = (today ? clock : calendar).format(date);
}
