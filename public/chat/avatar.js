// Draws the picture beside a message: the sender's initials on a colour made from the hash of their email,
// and over them the picture from Gravatar once it has loaded.
//
// Left out: the hash, which the server computes, since browsers hide `crypto.subtle` on plain http.

const SHA_256 = /^[0-9a-f]{64}$/;

// Maps a hash to the promise of the loaded picture, or of null where there is none. Failures are remembered
// too, for as long as the page lives: without access to Gravatar, the page asks once for each person and not
// once for each message.
const pictures = new Map();

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

// Draws into an element. The hash is that of the email in hexadecimal, or anything else where there is none.
export async function drawAvatar(avatar, name, hash) {
  avatar.textContent = initials(name);
  if (!SHA_256.test(hash)) return;
  avatar.dataset.hash = hash;
  avatar.style.setProperty('--hue', parseInt(hash.slice(0, 6), 16) % 360);
  if (!pictures.has(hash)) pictures.set(hash, loadPicture(hash));
  const picture = await pictures.get(hash);
  if (picture) avatar.append(picture.cloneNode()); // a browser does not load the clone of a loaded picture again
}
