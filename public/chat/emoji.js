// Short names such as :robot: and their emoji.
//
// The table is emoji.json, and the groups are in emoji_groups.json; docs/make_emoji.py makes both. Left out: skin
// tones.

let emoji = {}; // from short name, without its colons, to emoji
let names = []; // the short names

// Loads the table. Without it, short names stay as they were typed.
export async function loadEmoji() {
  try {
    const response = await fetch('emoji.json');
    emoji = Object(await response.json()); // an object whatever the file holds, so that it can be looked up
    names = Object.keys(emoji);
  } catch (error) {
    console.warn('The page has no emoji:', error);
  }
}

export function replaceShortNames(text) {
  const pieces = text.split(':');
  let result = pieces[0];
  for (let i = 1; i < pieces.length; i += 1) {
    const hasSecondColon = i < pieces.length - 1;
    // Object.hasOwn, because :constructor: is no short name.
    if (hasSecondColon && Object.hasOwn(emoji, pieces[i])) {
      result += emoji[pieces[i]] + pieces[i + 1];
      i += 1;
    } else {
      // The second colon of what is no short name may be the first of one: "at 10:30:robot:" has a robot in
      // it.
      result += `:${pieces[i]}`;
    }
  }
  return result;
}

// Returns up to `limit` emoji whose short names have a word that begins like this, as {name, emoji}. Those
// whose whole name begins like this come first, and of these the shortest. An emoji with several such names
// comes once.
export function findEmoji(beginning, limit) {
  const wanted = beginning.toLowerCase();
  const begin = names.filter((name) => name.startsWith(wanted));
  const contain = names.filter((name) => !name.startsWith(wanted) && name.includes(`_${wanted}`));
  const found = new Map(); // emoji → its name
  for (const name of [...begin.sort(byLength), ...contain.sort(byLength)]) {
    if (found.size === limit) break;
    if (!found.has(emoji[name])) found.set(emoji[name], name);
  }
  return [...found].map(([character, name]) => ({ name, emoji: character }));
}

// Loads all emoji by group, as {name of the group: [emoji, …]}. Returns null where that fails, or where the file
// does not fit the table.
export async function loadGroups() {
  try {
    const groups = await (await fetch('emoji_groups.json')).json();
    const known = new Set(allEmoji());
    const found = Object.values(groups).flat();
    return found.length > 0 && found.every((each) => known.has(each)) ? groups : null;
  } catch (error) {
    console.warn('The page has no groups of emoji:', error);
    return null;
  }
}

export function allEmoji() {
  return [...new Set(Object.values(emoji))];
}

let namesOf = null; // emoji → its short names, the shortest first

export function shortNamesOf(character) {
  namesOf ??= groupNames();
  return namesOf.get(character);
}

function groupNames() {
  const groups = new Map();
  for (const name of [...names].sort(byLength)) groups.set(emoji[name], [...(groups.get(emoji[name]) ?? []), name]);
  return groups;
}

function byLength(one, other) {
  return one.length - other.length || (one < other ? -1 : 1);
}
