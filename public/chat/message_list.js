// The list of messages on the page: it draws the part of the timeline that is around its reader, follows the
// end of it while the reader is there, and keeps the reader's place otherwise.
//
// However many messages there are, only those near the reader are in the page. When the reader scrolls, others
// take their place, and where the page has no more, it asks the server for older ones. After the messages that
// the server has numbered follow the user's own that are on their way (pending), and then those that were not
// sent (failed).
//
// Left out: the messages and their order (timeline.js), how one looks (message_item.js), and why a message has
// failed (connection.js, outbox.js).

import { makeButton, makeElement } from './elements.js';
import { setText } from './language.js';
import {
  addActions,
  makeItem,
  makePlainItem,
  setState,
  setSurroundings,
  shorten,
  updateTimes,
} from './message_item.js';
import { areOneGroup, beginsDay, Timeline } from './timeline.js';

const HALF = 300; // entries that are drawn before the reader's place, and after it
const MARGIN = 100; // entries; the drawn part moves when the reader is nearer to an end of it, see #isNearEdge
const MAX_ENTRIES = 10_000; // that are kept in memory
const KEPT_AT_END = 1_000; // entries that are always kept, so that the way back to the end is short
const NEAR_HOLE = 800; // px; a hole is filled before the reader has reached it
const HOLE_TIMEOUT = 15_000; // ms that the server may take for older messages
const AT_END = 2; // px; rounding can keep a list from being scrolled to its very end
const NEAR_END = 40; // px; a reader who comes nearer to the end of the list than this is there again
const FAR_FROM_END = 600; // px from which on a button offers the way back
const MAX_DRAW_DELAY = 100; // ms; a browser draws few frames or none for a page that is hidden
const HISTORY_PAUSE = 300; // ms without a message, after which the history counts as loaded
const MAX_HISTORY_TIME = 3_000; // ms after which it counts as loaded even if messages never pause
const DATE_CHECK_INTERVAL = 20_000; // ms; no timer is sure to fire at midnight
const READ_ALOUD_TIME = 10_000; // ms that a new message stays where screen readers read it
const MAX_READ_ALOUD = 500; // characters
const MAX_READ_AT_ONCE = 20; // messages; nobody could listen to more
const HOLE_TEXTS = {
  open: 'earlier',
  loading: 'loadingEarlier',
  failed: 'cannotLoad',
  beginning: 'beginning',
  deleted: 'deleted',
};

export class MessageList {
  #log = document.getElementById('log');
  #list = document.getElementById('messages');
  #toEnd = document.getElementById('new-messages');
  #noMessages = document.getElementById('no-messages');
  #timeline = new Timeline();
  #items = new Map(); // entry → its item, for those that are drawn
  #entries = new WeakMap(); // item → its entry
  #first = 0; // the index of the first entry that is drawn
  #ownItems = new Map(); // key → item that is pending or failed; those of one state in the order of the list
  #ownEntries = new WeakMap(); // such an item → {message, date, isOwn}, as if it were in the timeline
  #isOwn;
  #askForOlder;
  #loading = null; // the hole for which older messages were asked, and its timer, as {hole, before, timer}
  #changes = []; // what is to be done before the next frame is drawn
  #isAtEnd = true; // whether the reader is, and the list follows its end
  #lastScrollTop = 0; // px
  #place = null; // of the reader who is not at the end, see #readersPlace
  #firstUnread = null; // the entry before which is the line "New since you looked"
  #unseen = 0; // messages of others that have come since the reader left the end
  #today = new Date().toDateString();
  #historyTimer = null; // runs while the history is loading
  #historyEndsBy = 0; // by performance.now()

  // `isOwn(message)` returns whether the user has written a message. `askForOlder(id)` asks the server for
  // those before an id, and returns whether that was possible.
  constructor({ isOwn, askForOlder }) {
    this.#isOwn = isOwn;
    this.#askForOlder = askForOlder;
    this.#list.addEventListener('scroll', () => this.#handleScroll());
    this.#toEnd.addEventListener('click', () => this.#goToEnd());
    this.#list.addEventListener('keydown', (event) => this.#handleKey(event));
    const observer = new ResizeObserver(() => this.#handleResize());
    observer.observe(this.#list);
    setInterval(() => this.updateDates(), DATE_CHECK_INTERVAL);
  }

  // What the page shows changes with the day: today's messages become yesterday's.
  updateDates() {
    const today = new Date().toDateString();
    if (today === this.#today) return;
    this.#today = today;
    this.updateLanguage();
  }

  // Writes all dates and times anew. What else has a language is translated where it stands.
  updateLanguage() {
    this.#change(() => [...this.#items.values()].forEach(updateTimes));
  }

  // Adding messages

  // Call it when a connection has opened and the history follows. A screen reader would read all of the
  // history aloud, so nothing is read while it loads. The server does not say where the history ends: a pause
  // does.
  historyLoading() {
    this.#historyEndsBy = performance.now() + MAX_HISTORY_TIME;
    this.#list.setAttribute('aria-busy', 'true');
    this.#awaitPause();
  }

  get isHistoryLoading() {
    return this.#historyTimer !== null;
  }

  #awaitPause() {
    clearTimeout(this.#historyTimer);
    const delay = Math.min(HISTORY_PAUSE, this.#historyEndsBy - performance.now());
    this.#historyTimer = setTimeout(() => {
      this.#historyTimer = null;
      this.#list.removeAttribute('aria-busy');
      this.#noMessages.hidden = !this.#isEmpty;
      this.#change(() => this.#timeline.reopenHoles().forEach((hole) => this.#undraw(hole)));
    }, delay);
  }

  // Adds a message that the server has numbered, as decodeMessage returns it. If it is the copy of one of the
  // user's own, it takes that one's place. `isFirstUnread` puts a line before it.
  add(message, isFirstUnread = false) {
    const isHistory = this.isHistoryLoading;
    if (isHistory) this.#awaitPause();
    this.#change((follows) => {
      const wasSent = this.#removeOwn(message.key);
      const isOwn = wasSent || this.#isOwn(message);
      const entry = this.#timeline.add(message, isOwn, wasSent);
      if (entry === null) return;
      entry.isSent = wasSent;
      if (isFirstUnread) this.#moveUnreadLine(entry);
      if (isOwn) return;
      if (!follows) this.#unseen += 1;
      if (!isHistory) this.#readAloud(message);
    });
  }

  #readAloud({ username, message }) {
    if (this.#log.childElementCount >= MAX_READ_AT_ONCE) return;
    const text = makeElement('p', '', shorten(`${username}: ${message}`, MAX_READ_ALOUD));
    this.#log.append(text);
    setTimeout(() => text.remove(), READ_ALOUD_TIME);
  }

  // Notes that the server has left messages out at this place.
  addGap() {
    this.#change(() => this.#undraw(this.#timeline.addHole()));
  }

  // Takes the line away that is before the first unread message.
  clearUnreadLine() {
    this.#change(() => this.#moveUnreadLine(null));
  }

  #moveUnreadLine(entry) {
    const previous = this.#firstUnread;
    this.#firstUnread = entry;
    if (previous) previous.drawnAfter = undefined; // so that it is drawn anew without the line
  }

  // The user's own messages that have no number yet

  // Adds a message that is on its way, {email, username, message, key, said}, and scrolls to it. `said` is when
  // it was written, in ms since 1970.
  addPending(message) {
    this.#change(() => {
      const item = makeItem(message, null, true);
      this.#ownEntries.set(item, { message, date: new Date(message.said), isOwn: true });
      this.#markPending(message.key, item);
    });
    this.#isAtEnd = true; // wherever the list is scrolled
    this.#lastScrollTop = 0;
  }

  // Marks a failed message as being on its way again.
  markPending(key) {
    this.#change(() => {
      const item = this.#ownItems.get(key);
      if (item) this.#markPending(key, item);
    });
  }

  #markPending(key, item) {
    this.#setState(key, item, 'pending', 'sending');
    this.#list.insertBefore(item, this.#firstOwnItem('failed'));
  }

  // Marks a pending message as not sent. Each action, {label, act}, gets a button that calls `act` with the
  // key. The server's copy can still arrive later, see Connection.
  markFailed(key, reason, actions) {
    this.#change(() => {
      const item = this.#ownItems.get(key);
      if (!item) return; // the message could not be drawn
      this.#setState(key, item, 'failed', 'notSent', { reason });
      setSurroundings(item, { isContinued: false });
      this.#ownEntries.get(item).drawnAfter = undefined;
      this.#list.append(item);
      addActions(item, key, actions);
    });
  }

  // Makes the item the last one of its state in #ownItems, as its caller does in the list.
  #setState(key, item, ...state) {
    this.#keepFocus(item);
    setState(item, ...state);
    this.#ownItems.delete(key);
    this.#ownItems.set(key, item);
  }

  // Removes a failed message, because its author has deleted it.
  remove(key) {
    this.#change(() => this.#removeOwn(key));
  }

  // Returns whether there was such a message.
  #removeOwn(key) {
    const item = this.#ownItems.get(key);
    if (!item) return false;
    this.#keepFocus(item);
    item.remove();
    return this.#ownItems.delete(key);
  }

  #firstOwnItem(state) {
    const items = [...this.#ownItems.values()];
    return items.find((item) => item.matches(`ol > .${state}`)) ?? null;
  }

  // Older messages

  // Takes what the server has answered: {before, messages, more}, or {before, failed: true}.
  addOlder({ before, messages = [], more, failed }) {
    this.#change(() => {
      const acknowledged = messages.filter(({ key }) => this.#removeOwn(key));
      const isOwn = (message) => acknowledged.includes(message) || this.#isOwn(message);
      if (this.#loading?.before !== before) return; // it came too late, and was given up
      clearTimeout(this.#loading.timer);
      const { hole } = this.#loading;
      this.#loading = null;
      this.#markHole(hole, 'failed');
      if (!failed) this.#timeline.fill(hole, messages, more, isOwn);
    });
  }

  // It is drawn anew, as its text changes.
  #markHole(hole, state) {
    hole.hole = state;
    this.#undraw(hole);
  }

  // Call it when the connection is lost: an answer that is under way will not arrive.
  giveUpOlder() {
    if (this.#loading) this.addOlder({ before: this.#loading.before, failed: true });
  }

  #fill(hole) {
    if (this.#loading) return;
    const before = this.#timeline.idAfter(hole);
    const isPossible = this.#askForOlder(before);
    if (isPossible) {
      this.#loading = { hole, before, timer: setTimeout(() => this.giveUpOlder(), HOLE_TIMEOUT) };
    }
    this.#change(() => this.#markHole(hole, isPossible ? 'loading' : 'failed'));
  }

  // Fills a hole that is in sight, or soon will be.
  #fillNearHole() {
    if (this.isHistoryLoading) return; // where the reader will be is not known yet
    const { top, bottom } = this.#list.getBoundingClientRect();
    for (const [entry, item] of this.#items) {
      if (entry.hole !== 'open') continue;
      const place = item.getBoundingClientRect();
      if (place.bottom > top - NEAR_HOLE && place.top < bottom) this.#fill(entry);
    }
  }

  // Drawing

  // Makes a change before the next frame is drawn, so that many messages at once cost one layout. It gets
  // whether the reader is at the end.
  #change(change) {
    this.#changes.push(change);
    if (this.#changes.length > 1) return;
    requestAnimationFrame(() => this.#draw());
    setTimeout(() => this.#draw(), MAX_DRAW_DELAY);
  }

  #draw() {
    if (this.#changes.length === 0) return;
    const follows = this.#updateIsAtEnd();
    const place = follows ? null : this.#readersPlace();
    for (const change of this.#changes.splice(0)) attempt(() => change(follows));
    this.#surroundOwn();
    this.#forgetSurplus(place?.entry);
    if (place === null) this.#drawEnd();
    else this.#drawAround(place);
    this.#noMessages.hidden ||= !this.#isEmpty;
    this.#showWayToEnd();
    this.#fillNearHole();
  }

  #drawEnd() {
    const { length } = this.#timeline;
    this.#drawPart(length - 2 * HALF, length);
    this.#scrollToEnd();
  }

  // Draws the entries around the reader's place, and keeps that where it is on the screen.
  #drawAround({ entry, bottom }) {
    const index = this.#timeline.entries.indexOf(entry);
    if (index >= 0) this.#drawPart(index - HALF, index + HALF);
    const item = this.#items.get(entry);
    const shift = item ? this.#bottomOf(item) - bottom : 0;
    if (shift !== 0) this.#list.scrollTop += shift; // which would stop a smooth scrolling even with 0
    this.#lastScrollTop = this.#list.scrollTop;
    this.#place = { entry, bottom };
  }

  // Draws the entries from `start` to before `end`, and no others.
  #drawPart(start, end) {
    const first = Math.max(0, start);
    const { entries } = this.#timeline;
    const wanted = new Set(entries.slice(first, end));
    for (const entry of [...this.#items.keys()]) if (!wanted.has(entry)) this.#undraw(entry);
    this.#first = first;
    let previous = entries[first - 1] ?? null; // drawn or not
    let item = null;
    for (const entry of wanted) {
      item = this.#items.get(entry) ?? this.#drawAfter(item, entry);
      this.#surround(item, entry, previous);
      previous = entry;
    }
  }

  // Draws an entry after an item, or as the first of the list. Returns its item.
  #drawAfter(previous, entry) {
    const item = entry.hole ? this.#makeHole(entry) : makeMessage(entry);
    this.#items.set(entry, item);
    this.#entries.set(item, entry);
    if (previous) previous.after(item);
    else this.#list.prepend(item);
    return item;
  }

  #makeHole(entry) {
    const item = makeElement('li', `gap ${entry.hole}`);
    const canBeFilled = entry.hole === 'open' || entry.hole === 'failed';
    const open = () => this.#change(() => this.#markHole(entry, 'open'));
    const content = canBeFilled ? makeButton('', open) : makeElement('span', '');
    setText(content, HOLE_TEXTS[entry.hole]);
    item.append(content);
    return item;
  }

  // Who continues a group, and who begins a day, depends on the entry before.
  #surround(item, entry, previous) {
    if (entry.drawnAfter === previous) return;
    entry.drawnAfter = previous;
    if (entry.hole || item.matches('.plain')) return;
    const isFirstUnread = entry === this.#firstUnread;
    attempt(() =>
      setSurroundings(item, {
        isContinued: areOneGroup(previous, entry) && !isFirstUnread,
        day: beginsDay(previous, entry) ? entry.date : null,
        isFirstUnread,
      }),
    );
  }

  // A message on its way looks as it will in the timeline, so that nothing moves when it gets there.
  #surroundOwn() {
    let previous = this.#timeline.entries.at(-1) ?? null;
    for (const item of this.#ownItems.values()) {
      if (item.matches('ol > .failed')) continue;
      const entry = this.#ownEntries.get(item);
      this.#surround(item, entry, previous);
      previous = entry;
    }
  }

  #undraw(entry) {
    const item = this.#items.get(entry);
    if (!item) return;
    this.#keepFocus(item);
    item.remove();
    this.#items.delete(entry);
    entry.drawnAfter = undefined;
  }

  // Forgets messages that are far from the reader and from the end. The server has them still.
  #forgetSurplus(readersEntry) {
    const timeline = this.#timeline;
    if (timeline.length <= MAX_ENTRIES) return;
    const reader = readersEntry ? timeline.entries.indexOf(readersEntry) : timeline.length;
    const end = timeline.length - KEPT_AT_END;
    if (reader + KEPT_AT_END < end) timeline.forget(reader + KEPT_AT_END, end);
    if (reader > KEPT_AT_END) timeline.forget(0, Math.min(reader, timeline.length) - KEPT_AT_END);
  }

  // The place of the reader

  #handleScroll() {
    if (this.#updateIsAtEnd()) {
      this.#unseen = 0;
    } else {
      this.#place = this.#readersPlace();
      if (this.#place && this.#isNearEdge(this.#place)) this.#drawAround(this.#place);
    }
    this.#showWayToEnd();
    this.#fillNearHole();
  }

  // Returns whether the reader will soon reach an end of the drawn part. On a high screen, or one that shows
  // all very small, more than MARGIN entries can be in sight.
  #isNearEdge({ entry }) {
    const index = this.#timeline.entries.indexOf(entry);
    const last = this.#first + this.#items.size;
    const isNearStart = index - this.#first < MARGIN;
    const isNearEnd = last - index < MARGIN || this.#distanceFromEnd < this.#list.clientHeight;
    return (isNearStart && this.#first > 0) || (isNearEnd && last < this.#timeline.length);
  }

  // The lines of the messages break elsewhere when the list gets wider or narrower.
  #handleResize() {
    if (this.#updateIsAtEnd()) this.#scrollToEnd();
    else if (this.#place) this.#drawAround(this.#place);
  }

  // The browser's own way with these keys would end where the drawn part does.
  #handleKey(event) {
    if (event.shiftKey || event.altKey || event.metaKey) return;
    if (event.key === 'End') this.#goToEnd();
    else if (event.key === 'Home') this.#goToStart();
    else return;
    event.preventDefault();
  }

  // Returns the entry that is at the top of what the reader sees, and where it ends, in px below the top of the
  // list, as {entry, bottom}; or null where nothing is drawn. Where it begins would not do: the day or the name
  // above its text can go when older messages come before it. A hole is no such place, as it is about to be
  // replaced.
  #readersPlace() {
    const { top: listTop } = this.#list.getBoundingClientRect();
    const items = this.#list.children;
    let [low, high] = [0, items.length]; // the first item that ends below the top is between these
    while (low < high) {
      const middle = (low + high) >> 1;
      if (items[middle].getBoundingClientRect().bottom > listTop) high = middle;
      else low = middle + 1;
    }
    let item = items[low];
    if (item && this.#entries.get(item)?.hole) item = item.nextElementSibling;
    while (item && !this.#entries.has(item)) item = item.previousElementSibling; // one without a number
    return item ? { entry: this.#entries.get(item), bottom: this.#bottomOf(item) } : null;
  }

  #bottomOf(item) {
    return item.getBoundingClientRect().bottom - this.#list.getBoundingClientRect().top;
  }

  // Finds out whether the reader is at the end, and returns it.
  //
  // Who scrolls up leaves the end, be it by one pixel: a wheel or a finger moves the list little by little, and
  // a list that went back to its end meanwhile would hold its reader there. Nobody leaves it without scrolling:
  // when the list gets lower, for example because a keyboard appears on the screen, it follows its end.
  #updateIsAtEnd() {
    const { scrollTop } = this.#list;
    const distance = this.#isEndDrawn ? this.#distanceFromEnd : Infinity;
    const hasMovedDown = scrollTop > this.#lastScrollTop;
    const hasMovedUp = scrollTop < this.#lastScrollTop;
    this.#lastScrollTop = scrollTop;
    if (distance < AT_END || (hasMovedDown && distance < NEAR_END)) this.#isAtEnd = true;
    else if (hasMovedUp) this.#isAtEnd = false;
    return this.#isAtEnd;
  }

  get #isEmpty() {
    return this.#timeline.length === 0 && this.#ownItems.size === 0;
  }

  get #isEndDrawn() {
    return this.#timeline.length === 0 || this.#items.has(this.#timeline.entries.at(-1));
  }

  get #distanceFromEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.#list;
    return scrollHeight - clientHeight - scrollTop;
  }

  #goToEnd() {
    this.#drawEnd();
    this.#showWayToEnd();
  }

  #scrollToEnd() {
    this.#unseen = 0;
    this.#list.scrollTop = this.#list.scrollHeight;
    this.#lastScrollTop = this.#list.scrollTop;
    this.#isAtEnd = true;
    this.#place = null;
  }

  // To the first message that the page has. Older ones are asked for on the way.
  #goToStart() {
    this.#drawPart(0, 2 * HALF);
    this.#list.scrollTop = 0;
    this.#handleScroll();
  }

  // Shows the button that leads back to the end, to a reader who has left it and has something to see there.
  #showWayToEnd() {
    const isFar = !this.#isEndDrawn || this.#distanceFromEnd > FAR_FROM_END;
    const isNeeded = !this.#isAtEnd && (this.#unseen > 0 || isFar);
    if (!isNeeded) this.#keepFocus(this.#toEnd);
    this.#toEnd.hidden = !isNeeded;
    if (this.#unseen > 0) setText(this.#toEnd, 'unseen', { n: this.#unseen });
    else setText(this.#toEnd, 'toNewest');
  }

  // Moves the focus out of an element that is about to go. Without this, a keyboard's user would be thrown
  // back to the top of the page.
  #keepFocus(element) {
    if (element.contains(document.activeElement)) this.#list.focus({ preventScroll: true });
  }
}

// Makes the item of an entry of the timeline, or a plain one where its text cannot be drawn as others are.
function makeMessage({ message, date, isOwn, isSent }) {
  try {
    const item = makeItem(message, date, isOwn);
    if (isSent) setState(item, 'sent', 'sent');
    return item;
  } catch (error) {
    console.error(error);
    return makePlainItem(message);
  }
}

// A change that throws must not prevent others.
function attempt(action) {
  try {
    action();
  } catch (error) {
    console.error(error);
  }
}
