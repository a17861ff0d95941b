// Replaces shortcodes such as :robot: by emoji.
//
// The table of shortcodes is emoji.json, which docs/make_emoji.py makes. Left out: skin tones, and any help
// in typing shortcodes.

let emoji = {}; // from shortcode, without its colons, to emoji

// Loads the table. Without it, shortcodes stay as they were typed.
export async function loadEmoji() {
  try {
    const response = await fetch('emoji.json');
    emoji = Object(await response.json()); // an object whatever the file holds, so that it can be looked up
  } catch (error) {
    console.warn('The page has no emoji:', error);
  }
}

export function replaceShortcodes(text) {
  const pieces = text.split(':');
  let result = pieces[0];
  for (let i = 1; i < pieces.length; i += 1) {
    const hasSecondColon = i < pieces.length - 1;
    // Object.hasOwn, because :constructor: is no shortcode.
    if (hasSecondColon && Object.hasOwn(emoji, pieces[i])) {
      result += emoji[pieces[i]] + pieces[i + 1];
      i += 1;
    } else {
      // The second colon of what is no shortcode may be the first of one: "at 10:30:robot:" has a robot in
      // it.
      result += `:${pieces[i]}`;
    }
  }
  return result;
}
