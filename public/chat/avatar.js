// Who speaks: initials on a colour made from the hash, and Gravatar's picture over them once it is there.

const HASH = /^[0-9a-f]{64}$/;

// hash → promise of the loaded picture, or of null. Kept for the life of the page, failures too, so that
// a network without Gravatar is asked once for each person and not once for each message.
const pictures = new Map();

function load(hash) {
  return new Promise((resolve) => {
    const picture = new Image();
    picture.alt = '';
    picture.referrerPolicy = 'no-referrer'; // Gravatar need not know where this chat is
    picture.onload = () => resolve(picture);
    picture.onerror = () => resolve(null);
    picture.src = `https://www.gravatar.com/avatar/${hash}?s=80&d=404`;
  });
}

function initials(name) {
  const words = name.trim().split(/\s+/).slice(0, 2);
  const letters = words.map((word) => [...word][0] ?? ''); // by code point: half an emoji is no initial
  return letters.join('').toLocaleUpperCase() || '?';
}

export async function drawAvatar(place, name, hash) {
  place.textContent = initials(name);
  if (!HASH.test(hash)) return;
  place.dataset.hash = hash;
  place.style.setProperty('--hue', parseInt(hash.slice(0, 6), 16) % 360);
  if (!pictures.has(hash)) pictures.set(hash, load(hash));
  const picture = await pictures.get(hash);
  // A clone of a loaded picture is not fetched again.
  if (picture) place.append(picture.cloneNode());
}
