// The picture beside a message: the sender's initials on their colour, and over them the picture from Gravatar
// once it has loaded. The colour is made from the hash of the sender's email.
//
// Left out: the hash, which the server sends with each message; and how light a colour is, which the style sheet
// decides for each theme.

import { deviceStorage } from './storage.js';

const SHA_256 = /^[0-9a-f]{64}$/;

const MAX_PICTURES = 1_000; // more people than the page ever shows at the same time

// Maps a hash to the promise of the loaded picture, or of null where there is none. Failures are remembered
// too: without access to Gravatar, the page asks once for each person and not once for each message. Those that
// were needed last are kept, and stand at the end.
const pictures = new Map();
let areAllowed = deviceStorage.get('pictures') !== false;

export function picturesAllowed() {
  return areAllowed;
}

// Allows or forbids the page to ask Gravatar, from now on and on this device.
export function allowPictures(isAllowed) {
  areAllowed = isAllowed;
  deviceStorage.set('pictures', isAllowed);
}

function pictureOf(hash) {
  const picture = pictures.get(hash) ?? loadPicture(hash);
  pictures.delete(hash);
  pictures.set(hash, picture);
  const [longestUnneeded] = pictures.keys();
  if (pictures.size > MAX_PICTURES) pictures.delete(longestUnneeded);
  return picture;
}

function loadPicture(hash) {
  return new Promise((resolve) => {
    const picture = new Image();
    picture.alt = '';
    picture.referrerPolicy = 'no-referrer'; // Gravatar need not learn where this chat is
    picture.onload = () => resolve(picture);
    picture.onerror = () => resolve(null);
    picture.src = `https://www.gravatar.com/avatar/${hash}?s=80&d=404`;
  });
}

function initials(name) {
  const words = name.trim().split(/\s+/).slice(0, 2);
  const letters = words.map((word) => [...word][0] ?? ''); // by code point, or an emoji would be cut in half
  return letters.join('').toLocaleUpperCase() || '?';
}

// Gives an element the colour of a person. Without a hash it has that of nobody.
export function setColour(element, hash) {
  if (!SHA_256.test(hash)) return;
  element.classList.add('coloured');
  element.style.setProperty('--hue', parseInt(hash.slice(0, 6), 16) % 360);
}

// Draws into an element. The hash is that of the email in hexadecimal, or anything else where there is none.
export async function drawAvatar(avatar, name, hash) {
  avatar.textContent = initials(name);
  setColour(avatar, hash);
  if (!SHA_256.test(hash)) return;
  avatar.dataset.hash = hash;
  if (!areAllowed) return;
  const picture = await pictureOf(hash);
  if (picture && areAllowed) avatar.append(picture.cloneNode()); // the clone of a loaded one is not loaded again
}
