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

import { setText } from './language.js';
import {
  addActions,
  makeButton,
  makeElement,
  makeItem,
  makePlainItem,
  setState,
  setSurroundings,
  shorten,
  updateTimes,
} from './message_item.js';
import { areOneGroup, Timeline } from './timeline.js';

const HALF = 300; // entries that are drawn before the reader's place, and after it
const MARGIN = 100; // entries; the drawn part moves when the reader is nearer to an end of it
const MAX_ENTRIES = 10_000; // that are kept in memory
const KEPT_AT_END = 1_000; // entries that are always kept, so that the way back to the end is short
const NEAR_HOLE = 800; // px; a hole is filled before the reader has reached it
const HOLE_TIMEOUT = 15_000; // ms that the server may take for older messages
const NEAR_END = 40; // px; a reader who is nearer to the end of the list counts as being there
const FAR_FROM_END = 600; // px from which on a button offers the way back
const MAX_DRAW_DELAY = 100; // ms; a browser draws few frames or none for a page that is hidden
const HISTORY_PAUSE = 300; // ms without a message, after which the history counts as loaded
const MAX_HISTORY_TIME = 3_000; // ms after which it counts as loaded even if messages never pause
const DATE_CHECK_INTERVAL = 20_000; // ms; no timer is sure to fire at midnight
const READ_ALOUD_TIME = 10_000; // ms that a new message stays where screen readers read it
const MAX_READ_ALOUD = 500; // characters
const LEFT_THE_END = Infinity;
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
  #isOwn;
  #askForOlder;
  #loading = null; // the hole for which older messages were asked, and its timer, as {hole, before, timer}
  #changes = []; // what is to be done before the next frame is drawn
  // How far the list was scrolled when its reader was last at the end, in px; or LEFT_THE_END.
  #scrollTopAtEnd = 0;
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
    const observer = new ResizeObserver(() => this.#isReaderAtEnd() && this.#scrollToEnd());
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

  #awaitPause() {
    clearTimeout(this.#historyTimer);
    const delay = Math.min(HISTORY_PAUSE, this.#historyEndsBy - performance.now());
    this.#historyTimer = setTimeout(() => {
      this.#historyTimer = null;
      this.#list.removeAttribute('aria-busy');
      this.#noMessages.hidden = this.#timeline.length > 0 || this.#ownItems.size > 0;
      this.#fillNearHole();
    }, delay);
  }

  // Adds a message that the server has numbered, as decodeMessage returns it. If it is the copy of one of the
  // user's own, it takes that one's place. `isFirstUnread` puts a line before it.
  add(message, isFirstUnread = false) {
    const isHistory = this.#historyTimer !== null;
    if (isHistory) this.#awaitPause();
    this.#change((follows) => {
      const wasSent = this.#removeOwn(message.key);
      const isOwn = wasSent || this.#isOwn(message);
      const entry = this.#timeline.add(message, isOwn);
      entry.isSent = wasSent;
      if (isFirstUnread) this.#moveUnreadLine(entry);
      if (isOwn) return;
      if (!follows) this.#unseen += 1;
      if (!isHistory) this.#readAloud(message);
    });
  }

  #readAloud({ username, message }) {
    const text = makeElement('p', '', shorten(`${username}: ${message}`, MAX_READ_ALOUD));
    this.#log.append(text);
    setTimeout(() => text.remove(), READ_ALOUD_TIME);
  }

  // Notes that the server has left messages out at this place.
  addGap() {
    this.#change(() => this.#timeline.addHole());
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

  // Adds a message that is on its way, {email, username, message, key}, and scrolls to it.
  addPending(message) {
    this.#change(() => {
      const item = makeItem(message, null, true);
      const isContinued = areOneGroup(this.#timeline.entries.at(-1), { message, date: new Date() });
      setSurroundings(item, { isContinued });
      this.#markPending(message.key, item);
    });
    this.#scrollTopAtEnd = 0; // the reader counts as being at the end, wherever the list is scrolled
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
  addOlder({ before, messages, more, failed }) {
    this.#change(() => {
      if (this.#loading?.before !== before) return; // it came too late, and was given up
      clearTimeout(this.#loading.timer);
      const { hole } = this.#loading;
      this.#loading = null;
      this.#undraw(hole); // its text changes, or it is gone
      if (failed) hole.hole = 'failed';
      else this.#timeline.fill(hole, messages, more, this.#isOwn);
    });
  }

  // Call it when the connection is lost: an answer that is under way will not arrive.
  giveUpOlder() {
    if (this.#loading) this.addOlder({ before: this.#loading.before, failed: true });
  }

  #fill(hole) {
    if (this.#loading) return;
    const before = this.#timeline.idAfter(hole);
    if (before === null || !this.#askForOlder(before)) return;
    this.#loading = { hole, before, timer: setTimeout(() => this.giveUpOlder(), HOLE_TIMEOUT) };
    this.#change(() => {
      hole.hole = 'loading';
      this.#undraw(hole);
    });
  }

  // Fills a hole that is in sight, or soon will be.
  #fillNearHole() {
    if (this.#historyTimer !== null) return; // where the reader will be is not known yet
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
    const follows = this.#isReaderAtEnd();
    const place = follows ? null : this.#readersPlace();
    for (const change of this.#changes.splice(0)) attempt(() => change(follows));
    this.#forgetSurplus(place?.entry);
    if (place === null) this.#drawEnd();
    else this.#drawAround(place);
    this.#noMessages.hidden ||= this.#timeline.length > 0 || this.#ownItems.size > 0;
    this.#showWayToEnd();
    this.#fillNearHole();
  }

  #drawEnd() {
    const { length } = this.#timeline;
    this.#drawPart(length - 2 * HALF, length);
    this.#scrollToEnd();
  }

  // Draws the entries around the reader's place, and keeps that where it is on the screen.
  #drawAround({ entry, top }) {
    const index = this.#timeline.entries.indexOf(entry);
    if (index >= 0) this.#drawPart(index - HALF, index + HALF);
    const item = this.#items.get(entry);
    if (item) this.#list.scrollTop += item.getBoundingClientRect().top - top;
  }

  // Draws the entries from `start` to before `end`, and no others.
  #drawPart(start, end) {
    const first = Math.max(0, start);
    const { entries } = this.#timeline;
    const wanted = new Set(entries.slice(first, end));
    for (const entry of [...this.#items.keys()]) if (!wanted.has(entry)) this.#undraw(entry);
    this.#first = first;
    let index = first;
    let item = null;
    for (const entry of wanted) {
      item = this.#items.get(entry) ?? this.#drawAfter(item, entry);
      // Who continues a group, and who begins a day, depends on the entry before, drawn or not.
      const previous = entries[index - 1] ?? null;
      if (entry.drawnAfter !== previous) attempt(() => this.#surround(entry, index));
      entry.drawnAfter = previous;
      index += 1;
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
    const content = canBeFilled ? makeButton('', () => this.#fill(entry)) : makeElement('span', '');
    setText(content, HOLE_TEXTS[entry.hole]);
    item.append(content);
    return item;
  }

  #surround(entry, index) {
    const item = this.#items.get(entry);
    if (entry.hole || item.matches('.plain')) return;
    setSurroundings(item, {
      isContinued: this.#timeline.continuesGroup(index) && entry !== this.#firstUnread,
      day: this.#timeline.beginsDay(index) ? entry.date : null,
      isFirstUnread: entry === this.#firstUnread,
    });
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
    if (this.#isReaderAtEnd()) {
      this.#unseen = 0;
    } else {
      const place = this.#readersPlace();
      const index = this.#timeline.entries.indexOf(place?.entry);
      const last = this.#first + this.#items.size;
      const isNearStart = index - this.#first < MARGIN && this.#first > 0;
      const isNearEnd = last - index < MARGIN && last < this.#timeline.length;
      if (index >= 0 && (isNearStart || isNearEnd)) this.#drawAround(place);
    }
    this.#showWayToEnd();
    this.#fillNearHole();
  }

  // Returns the entry that is at the top of what the reader sees, and where on the screen it is, in px, as
  // {entry, top}; or null where nothing is drawn. A hole is no such place, as it is about to be replaced.
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
    return item ? { entry: this.#entries.get(item), top: item.getBoundingClientRect().top } : null;
  }

  // When the list gets lower, for example because a keyboard appears on the screen, its end moves out of
  // sight though the reader has not scrolled. So the reader has left the end only if the list is scrolled
  // further up than before.
  #isReaderAtEnd() {
    const { scrollTop } = this.#list;
    if (this.#isEndDrawn && this.#distanceFromEnd < NEAR_END) this.#scrollTopAtEnd = scrollTop;
    else if (scrollTop < this.#scrollTopAtEnd) this.#scrollTopAtEnd = LEFT_THE_END;
    return this.#scrollTopAtEnd !== LEFT_THE_END;
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
    this.#scrollTopAtEnd = this.#list.scrollTop;
  }

  // Shows the button that leads back to the end, to a reader who has left it and has something to see there.
  #showWayToEnd() {
    const hasLeft = this.#scrollTopAtEnd === LEFT_THE_END;
    const isFar = !this.#isEndDrawn || this.#distanceFromEnd > FAR_FROM_END;
    const isNeeded = hasLeft && (this.#unseen > 0 || isFar);
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
