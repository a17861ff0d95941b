// One message as it stands in the list: its parts, its time, its state, and what its author can do if it was
// not sent. Left out: its place in the list (message_list.js).

import { drawAvatar, setColour } from './avatar.js';
import { makeButton, makeElement } from './elements.js';
import { formatDay, formatMoment, formatTime, setAttribute, setText } from './language.js';
import { drawText } from './message_text.js';

const MAX_NAME = 128; // characters; servers refuse more than 64, but a history from elsewhere may have more
const MAX_TITLE = 254; // characters
const MAX_LABEL = 40; // characters of a message in the label of its buttons, for screen readers

// Makes the item of a message. `date` is a Date, or null where it is not known.
export function makeItem({ username, email, message, avatar }, date, isOwn) {
  const item = makeElement('li', isOwn ? 'message own' : 'message');
  const portrait = makeElement('span', 'avatar');
  portrait.ariaHidden = 'true';
  drawAvatar(portrait, username, avatar);
  const text = makeElement('div', 'text');
  drawText(text, message);
  item.append(portrait, makeHead(username, email, avatar, date), text);
  return item;
}

function makeHead(username, email, avatar, date) {
  const name = makeElement('span', 'name', shorten(username, MAX_NAME));
  if (username === '') setText(name, 'noName');
  name.title = shorten(email, MAX_TITLE);
  setColour(name, avatar);
  const head = makeElement('div', 'head');
  head.append(name, ' ', makeElement('time', 'time'), makeElement('span', 'state'));
  showTime(head.querySelector('.time'), date);
  return head;
}

// Makes the item of a message that cannot be drawn as others are: its text matters more than how it looks.
export function makePlainItem({ username, message }) {
  return makeElement('li', 'message plain', `${username}: ${message}`);
}

function showTime(time, date) {
  if (date === null) return;
  time.dateTime = date.toISOString();
  time.textContent = formatTime(date);
  time.title = formatMoment(date);
}

// Writes dates and times anew, in another language, or on another day.
export function updateTimes(item) {
  for (const time of item.querySelectorAll('.time[datetime]')) showTime(time, new Date(time.dateTime));
  for (const day of item.querySelectorAll('.day time')) day.textContent = formatDay(new Date(day.dateTime));
}

// Puts the item into its surroundings: whether it continues a group of messages, begins a day (a Date, or
// null), and is the first that its reader has not seen.
export function setSurroundings(item, { isContinued, day, isFirstUnread }) {
  item.classList.toggle('continued', isContinued);
  item.querySelector('.unread')?.remove();
  item.querySelector('.day')?.remove();
  if (isFirstUnread) {
    const line = makeElement('p', 'unread');
    setText(line, 'newSinceYouLooked');
    item.prepend(line);
  }
  if (day) {
    const line = makeElement('p', 'day');
    const time = makeElement('time', '', formatDay(day));
    time.dateTime = day.toISOString();
    line.append(time);
    item.prepend(line);
  }
}

// Shows that a message of the user's own is pending, failed or sent. `key` and `parameters` are those of the
// text that says so, see translate.
export function setState(item, state, key, parameters) {
  item.classList.remove('pending', 'failed', 'sent');
  item.classList.add(state);
  item.querySelector('.actions')?.remove();
  const shown = item.querySelector('.state');
  if (shown) setText(shown, key, parameters);
}

// Adds a button for each action, {label, act}, which calls `act` with the message's key. A screen reader gets
// the beginning of the message with each, to tell which message it is for.
export function addActions(item, key, actions) {
  const text = shorten(item.querySelector('.text').textContent, MAX_LABEL);
  const group = makeElement('span', 'actions');
  for (const { label, act } of actions) {
    const button = makeButton('', () => act(key));
    setText(button, label);
    setAttribute(button, 'aria-label', 'actionFor', { action: { key: label }, text });
    group.append(button);
  }
  item.append(group);
}

// Counts code points, so that no emoji is cut in half.
export function shorten(text, maxLength) {
  if (text.length <= maxLength) return text;
  const characters = [...text];
  if (characters.length <= maxLength) return text;
  return `${characters.slice(0, maxLength - 1).join('')}…`;
}
