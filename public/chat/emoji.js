// Short names such as :robot: become emoji. docs/make_emoji.py makes the table.

let emoji = {};

// Without the table short names stay as they were typed.
export async function loadEmoji() {
  try {
    const table = await (await fetch('emoji.json')).json();
    emoji = Object(table); // what is no table has no names
  } catch (error) {
    console.warn('no emoji:', error);
  }
}

export function withEmoji(text) {
  const pieces = text.split(':');
  let result = pieces[0];
  for (let i = 1; i < pieces.length; i += 1) {
    const closed = i < pieces.length - 1;
    // hasOwn, because :constructor: is no emoji. A piece that is none leaves its second colon to the
    // next one: "at 10:30:robot:" has a robot in it.
    if (closed && Object.hasOwn(emoji, pieces[i])) {
      result += emoji[pieces[i]] + pieces[i + 1];
      i += 1;
    } else {
      result += `:${pieces[i]}`;
    }
  }
  return result;
}
