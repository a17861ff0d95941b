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

export class Timeline {
  entries = [];

  get length() {
    return this.entries.length;
  }

  // Adds a message at the end. Returns its entry.
  add(message, isOwn) {
    const entry = makeEntry(message, isOwn);
    this.entries.push(entry);
    return entry;
  }

  // Adds a hole at the end, unless there is one already.
  addHole() {
    if (this.entries.at(-1)?.hole !== 'open') this.entries.push({ hole: 'open' });
  }

  // Returns the id that a hole ends before, or null where nothing with an id follows it yet.
  idAfter(hole) {
    const following = this.entries.slice(this.entries.indexOf(hole) + 1);
    return following.find(({ message }) => isId(message?.id))?.message.id ?? null;
  }

  // Fills a hole with the messages directly before its lower end, the oldest first. `more` says whether the
  // server has older ones still.
  fill(hole, messages, more, isOwn) {
    const index = this.entries.indexOf(hole);
    if (index < 0) return; // it was forgotten meanwhile
    const before = this.#idBefore(index);
    const missing = messages.filter(({ id }) => before === null || (isId(id) && isLater(id, before)));
    const isClosed = missing.length < messages.length; // the server is back at what the page has
    const filling = missing.map((message) => makeEntry(message, isOwn(message)));
    if (more) hole.hole = 'open';
    else hole.hole = before === null ? 'beginning' : 'deleted';
    this.entries.splice(index, 1, ...(isClosed ? [] : [hole]), ...filling);
  }

  #idBefore(index) {
    const earlier = this.entries.slice(0, index).reverse();
    return earlier.find(({ message }) => isId(message?.id))?.message.id ?? null;
  }

  // Replaces the entries from `start` to before `end` by a hole.
  forget(start, end) {
    const surroundings = [this.entries[start - 1], this.entries[end]];
    const hasHole = surroundings.some((entry) => entry?.hole === 'open');
    this.entries.splice(start, end - start, ...(hasHole ? [] : [{ hole: 'open' }]));
  }

  // Returns whether the entry begins another day than the message before it.
  beginsDay(index) {
    const { date } = this.entries[index];
    const previous = this.entries[index - 1]?.date;
    return Boolean(date) && date.toDateString() !== previous?.toDateString();
  }

  // Returns whether the entry belongs to a group that has begun before it: the same person has said something
  // a short while ago.
  continuesGroup(index) {
    const [previous, entry] = [this.entries[index - 1], this.entries[index]];
    return !this.beginsDay(index) && areOneGroup(previous, entry);
  }
}

function makeEntry(message, isOwn) {
  return { message, date: timeOf(message.id), isOwn };
}

// Returns whether an entry continues the group of the previous one. Either may be missing.
export function areOneGroup(previous, entry) {
  if (!previous?.message || !entry?.message || !previous.date || !entry.date) return false;
  const isSamePerson = ['username', 'email', 'avatar'].every(
    (field) => previous.message[field] === entry.message[field],
  );
  return isSamePerson && Math.abs(entry.date - previous.date) < GROUP_TIME;
}
