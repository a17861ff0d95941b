// Who is online: how many, and the names of some, each with their colour. On a wide screen the list stands
// beside the messages, on a narrow one a button opens it.
//
// Left out: who is counted; the server decides that.

import { drawAvatar, setColour } from './avatar.js';
import { setAttribute, setText } from './language.js';
import { makeElement } from './message_item.js';

const panel = document.getElementById('online');
const button = document.getElementById('show-online');
const closeButton = document.getElementById('close-online');
const isWide = matchMedia('(min-width: 52.01rem)'); // as in style.css; then the list is always shown

// Shows {count, people}. The server sends the number of all, and {username, avatar} of some.
export function showPeople({ count, people }) {
  const items = people.map(({ username, avatar }) => makePerson(username, avatar));
  const unnamed = count - people.length;
  if (unnamed > 0) {
    const item = makeElement('li', 'unnamed');
    setText(item, 'unnamed', { n: unnamed });
    items.push(item);
  }
  setText(panel.querySelector('h2'), 'online', { n: count });
  panel.querySelector('ul').replaceChildren(...items);
  panel.hidden = false;
  button.hidden = false;
  setText(button.querySelector('.count'), 'onlineCount', { n: count });
  setAttribute(button, 'aria-label', 'showOnline', { n: count });
}

function makePerson(username, avatar) {
  const item = makeElement('li', '');
  const portrait = makeElement('span', 'avatar');
  portrait.ariaHidden = 'true';
  drawAvatar(portrait, username, avatar);
  const name = makeElement('span', 'name', username);
  if (username === '') setText(name, 'noName');
  setColour(name, avatar);
  item.append(portrait, name);
  return item;
}

function show(isOpen) {
  panel.classList.toggle('open', isOpen);
  button.ariaExpanded = String(isOpen);
}

function close() {
  show(false);
  button.focus();
}

button.addEventListener('click', () => {
  if (panel.classList.contains('open')) {
    close();
    return;
  }
  show(true);
  closeButton.focus();
});
closeButton.addEventListener('click', close);
document.addEventListener('keydown', ({ key }) => {
  if (key === 'Escape' && panel.classList.contains('open')) close();
});

// The list covers what is behind it, so it goes when somebody turns to that.
const closeBehind = ({ target }) => {
  if (!panel.contains(target) && !button.contains(target)) show(false);
};
document.addEventListener('pointerdown', closeBehind);
document.addEventListener('focusin', closeBehind);

// When the screen is turned, the close button, which had the focus, is hidden.
isWide.addEventListener('change', () => {
  if (panel.classList.contains('open')) document.getElementById('messages').focus();
  show(false);
});
