// The messages that the page knows, in their order, and the holes between them.
//
// A hole stands for messages that the server has and the page has not: those before the newest ones that it
// sent at first, those that were missed while the connection was lost for long, and those that the page has
// removed to save memory. A hole is filled from its lower end, a page of older messages at a time. Left out:
// what is drawn of all this (message_list.js).
//
// An entry is a message, {message, date, isOwn}, or a hole, {hole}, where `hole` is open (it can
// be filled), loading, failed (it can be tried again), beginning or deleted (nothing is left to fill it with).

import { isId, isLater, timeOf } from './message.js';

const GROUP_TIME = 5 * 60_000; // ms between two messages of one person that are drawn as one group
const LATEST_ID = '9999999999999-0'; // later than any message, until the year 2286

export class Timeline {
  entries = [];

  get length() {
    return this.entries.length;
  }

  // Adds a message, nearly always at the end. Returns its entry, or null where the message is here already.
  //
  // The copy of one that was sent again (`wasSent`) can be older than others, and goes to its place among them.
  // Any other with a lower id is new: the clock of a server without a history file was set back.
  add(message, isOwn, wasSent = false) {
    const entry = makeEntry(message, isOwn);
    const newest = this.#idBefore(this.length);
    const isOlder = newest !== null && isId(message.id) && !isLater(message.id, newest);
    if (isOlder && this.entries.some((each) => areTheSame(each.message, message))) return null;
    if (isOlder && wasSent && !this.entries.at(-1).hole) this.#insert(entry);
    else this.entries.push(entry);
    return entry;
  }

  // Puts an entry at the place that its id gives it. Within a hole it leaves one before it and one after it.
  #insert(entry) {
    const isBefore = ({ message }) => isId(message?.id) && isLater(entry.message.id, message.id);
    let index = this.entries.findLastIndex(isBefore) + 1;
    const hole = this.entries[index]?.hole;
    const isFinal = hole === 'beginning' || hole === 'deleted';
    if (isFinal) index += 1;
    this.entries.splice(index, 0, ...(hole && !isFinal ? [{ hole: 'open' }] : []), entry);
  }

  // Adds a hole at the end, or opens again the one that is there already. Returns it.
  addHole() {
    if (!this.entries.at(-1)?.hole) this.entries.push({ hole: 'open' });
    const hole = this.entries.at(-1);
    if (hole.hole !== 'loading') hole.hole = 'open';
    return hole;
  }

  // Returns the id that a hole ends before. It is later than any message where none follows the hole.
  idAfter(hole) {
    const following = this.entries.slice(this.entries.indexOf(hole) + 1);
    return following.find(({ message }) => isId(message?.id))?.message.id ?? LATEST_ID;
  }

  // Lets the holes be filled that could not be. Returns them.
  reopenHoles() {
    const failed = this.entries.filter(({ hole }) => hole === 'failed');
    for (const entry of failed) entry.hole = 'open';
    return failed;
  }

  // Fills a hole with the messages directly before its lower end, the oldest first. `more` says whether the
  // server has older ones still. One that promises more and gives none would be asked for ever.
  fill(hole, messages, more, isOwn) {
    const index = this.entries.indexOf(hole);
    if (index < 0) return; // it was forgotten meanwhile
    const start = this.#idBefore(index);
    const end = this.idAfter(hole);
    const older = messages.filter(({ id }) => isId(id) && isLater(end, id));
    const missing = older.filter(({ id }) => start === null || isLater(id, start));
    const isClosed = missing.length < older.length; // the server is back at what the page has
    const filling = missing.map((message) => makeEntry(message, isOwn(message)));
    if (more) hole.hole = older.length > 0 ? 'open' : 'failed';
    else hole.hole = start === null ? 'beginning' : 'deleted';
    this.entries.splice(index, 1, ...(isClosed ? [] : [hole]), ...filling);
  }

  #idBefore(index) {
    for (let i = index - 1; i >= 0; i -= 1) {
      const { message } = this.entries[i];
      if (isId(message?.id)) return message.id;
    }
    return null;
  }

  // Replaces the entries from `start` to before `end` by a hole.
  forget(start, end) {
    const surroundings = [this.entries[start - 1], this.entries[end]];
    const hasHole = surroundings.some((entry) => entry?.hole === 'open');
    this.entries.splice(start, end - start, ...(hasHole ? [] : [{ hole: 'open' }]));
  }
}

function areTheSame(one, other) {
  return one?.id === other.id && one.message === other.message;
}

function makeEntry(message, isOwn) {
  return { message, date: timeOf(message.id), isOwn };
}

// Returns whether an entry begins another day than the one before it, which may be missing.
export function beginsDay(previous, { date }) {
  return Boolean(date) && date.toDateString() !== previous?.date?.toDateString();
}

// Returns whether an entry continues the group of the one before it, which may be missing: the same person has
// said something a short while ago, on the same day.
export function areOneGroup(previous, entry) {
  if (!previous?.message || !entry.message || !previous.date || !entry.date) return false;
  const isSoon = Math.abs(entry.date - previous.date) < GROUP_TIME && !beginsDay(previous, entry);
  return isSoon && areOfOnePerson(previous, entry);
}

// The user's own messages stand apart. One that is on its way has no avatar yet.
function areOfOnePerson(one, other) {
  if (one.isOwn || other.isOwn) return one.isOwn === other.isOwn;
  return ['username', 'email', 'avatar'].every((field) => one.message[field] === other.message[field]);
}
