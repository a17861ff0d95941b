// The field in which a message is written: it grows with its text, keeps the text over a reload, sends it with
// Enter, and says when it becomes too long.
//
// Left out: where the message goes (app.js), and the emoji (emoji_list.js, emoji_panel.js).

import { EmojiList } from './emoji_list.js';
import { EmojiPanel } from './emoji_panel.js';
import { setPlainText, setText } from './language.js';
import { encodeMessage } from './message.js';
import { KEY_LENGTH } from './outbox.js';
import { tabStorage } from './storage.js';
import { grow, submitOnEnter } from './text_field.js';

const SHOW_LEFT_FROM = 0.8; // of the longest text; from then on the field says how much is left
const MAX_BYTES_EACH = 6; // of a UTF-16 code unit in JSON, as in \u0007
const encoder = new TextEncoder();

export class Composer {
  #form = document.getElementById('send');
  #field = document.getElementById('message');
  #button = document.getElementById('send-button');
  #left = document.getElementById('characters-left');
  #error = document.getElementById('send-error');
  #emojiList;
  #emojiPanel;
  #otherBytes; // of a message in JSON without its text
  #maxBytes = Infinity; // of a text in JSON

  // `send(text)` returns whether the text will be sent.
  constructor(person, send) {
    this.#otherBytes = byteLength(encodeMessage({ ...person, message: '', key: '-'.repeat(KEY_LENGTH) }));
    this.#emojiList = new EmojiList(this.#field);
    this.#emojiPanel = new EmojiPanel(this.#field);
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit(send);
    });
    submitOnEnter(this.#field); // after the list of emoji, which takes some keys for itself
    this.#field.addEventListener('input', () => {
      setPlainText(this.#error, '');
      this.#handleInput();
    });
    this.text = toText(tabStorage.get('draft'));
  }

  get text() {
    return this.#field.value;
  }

  set text(text) {
    this.#field.value = text;
    this.#emojiList.close();
    this.#handleInput();
  }

  // Takes the largest message in bytes, as JSON, that the server accepts; anything else where it does not say.
  setLimit(maxBytes) {
    if (maxBytes > 0) this.#maxBytes = maxBytes - this.#otherBytes;
    this.#showLeft();
  }

  focus() {
    this.#field.focus();
  }

  // Allows or forbids to write. Returns whether the focus was lost by that.
  allow(isAllowed) {
    const hasFocus = this.#form.contains(document.activeElement) || this.#emojiPanel.hasFocus;
    const losesFocus = !isAllowed && hasFocus;
    this.#emojiPanel.allow(isAllowed);
    this.#field.disabled = !isAllowed;
    this.#button.disabled = !isAllowed;
    return losesFocus;
  }

  #submit(send) {
    this.#field.focus();
    const text = this.text.trim();
    if (text === '') return;
    if (textBytes(text) > this.#maxBytes) {
      setText(this.#error, 'tooLong');
      return;
    }
    if (!send(text)) {
      setText(this.#error, 'tooMuchWaiting');
      return;
    }
    setPlainText(this.#error, '');
    this.text = '';
  }

  #handleInput() {
    tabStorage.set('draft', this.text);
    grow(this.#field);
    this.#showLeft();
  }

  // Says how many characters are left. The server counts bytes of JSON, of which a character may take several,
  // so the page assumes that further characters take as many as those that are there.
  #showLeft() {
    const text = this.text.trim();
    const isShort = text.length * MAX_BYTES_EACH < SHOW_LEFT_FROM * this.#maxBytes; // whatever its characters are
    const bytes = isShort ? 0 : textBytes(text);
    const isTooLong = bytes > this.#maxBytes;
    this.#left.classList.toggle('over', isTooLong);
    this.#field.ariaInvalid = String(isTooLong);
    if (bytes === 0 || bytes < SHOW_LEFT_FROM * this.#maxBytes) {
      setPlainText(this.#left, '');
      return;
    }
    const bytesEach = bytes / [...text].length;
    const left = (this.#maxBytes - bytes) / bytesEach;
    if (isTooLong) setText(this.#left, 'charactersOver', { n: Math.ceil(-left) });
    else setText(this.#left, 'charactersLeft', { n: Math.floor(left) });
  }
}

function byteLength(text) {
  return encoder.encode(text).length;
}

// Returns how many bytes a text takes in a message's JSON, where it stands between quotes.
function textBytes(text) {
  return byteLength(JSON.stringify(text)) - 2;
}

function toText(value) {
  return typeof value === 'string' ? value : ''; // storage may hold anything
}
