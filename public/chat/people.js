// Who is online: how many, and the names of some, each with their colour. On a wide screen the list stands
// beside the messages, on a narrow one a button opens it.
//
// Left out: who is counted, which the server decides, and how the list opens (side_panel.js).

import { drawAvatar, setColour } from './avatar.js';
import { makeElement, makeText } from './elements.js';
import { setAttribute, setText } from './language.js';
import { SidePanel } from './side_panel.js';

const panel = document.getElementById('online');
const button = document.getElementById('show-online');

new SidePanel({
  panel,
  button,
  closeButton: document.getElementById('close-online'),
  widths: '(min-width: 52.01rem)', // as in style.css
  fallback: document.getElementById('messages'),
});

// Shows {count, people}. The server sends the number of all, and {username, avatar} of some.
export function showPeople({ count, people }) {
  const items = people.map(({ username, avatar }) => makePerson(username, avatar));
  const unnamed = count - people.length;
  if (unnamed > 0) items.push(makeText('li', 'unnamed', { key: 'unnamed', n: unnamed }));
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
