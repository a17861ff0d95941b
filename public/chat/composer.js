// The field in which a message is written: it grows with its text, keeps the text over a reload, sends it with
// Enter, and says when it becomes too long.
//
// Left out: where the message goes (app.js), and the list of emoji (emoji_list.js).

import { EmojiList } from './emoji_list.js';
import { setPlainText, setText } from './language.js';
import { encodeMessage } from './message.js';
import { tabStorage } from './storage.js';

const SHOW_LEFT_FROM = 0.8; // of the longest message; from then on the field says how much is left
const encoder = new TextEncoder();

export class Composer {
  #form = document.getElementById('send');
  #field = document.getElementById('message');
  #button = document.getElementById('send-button');
  #left = document.getElementById('characters-left');
  #error = document.getElementById('send-error');
  #person;
  #maxBytes = Infinity;

  // `send(text)` returns whether the text will be sent.
  constructor(person, send) {
    this.#person = person;
    new EmojiList(this.#field);
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit(send);
    });
    this.#field.addEventListener('keydown', (event) => this.#handleKey(event));
    this.#field.addEventListener('input', () => this.#handleInput());
    this.text = toText(tabStorage.get('draft'));
  }

  get text() {
    return this.#field.value;
  }

  set text(text) {
    this.#field.value = text;
    this.#handleInput();
  }

  // Takes the largest message in bytes, as JSON, that the server accepts; anything else where it does not say.
  setLimit(maxBytes) {
    if (maxBytes > 0) this.#maxBytes = maxBytes;
    this.#showLeft();
  }

  focus() {
    this.#field.focus();
  }

  // Allows or forbids to write. Returns whether the focus was lost by that.
  allow(isAllowed) {
    const losesFocus = !isAllowed && this.#form.contains(document.activeElement);
    this.#field.disabled = !isAllowed;
    this.#button.disabled = !isAllowed;
    return losesFocus;
  }

  #submit(send) {
    this.#field.focus();
    const text = this.text.trim();
    if (text === '' || this.#bytesLeft(text) < 0) return;
    if (!send(text)) {
      setText(this.#error, 'tooMuchWaiting');
      return;
    }
    setPlainText(this.#error, '');
    this.text = '';
  }

  #handleKey(event) {
    // Enter may also pick a word in an input method. Safari says so by the key code 229 alone.
    const isInputMethod = event.isComposing || event.keyCode === 229;
    if (event.key !== 'Enter' || event.shiftKey || isInputMethod) return;
    event.preventDefault();
    this.#form.requestSubmit();
  }

  #handleInput() {
    tabStorage.set('draft', this.text);
    this.#grow();
    this.#showLeft();
  }

  // For browsers in which the style sheet cannot say that a field grows with its text.
  #grow() {
    if (CSS.supports('field-sizing', 'content')) return;
    this.#field.style.height = '';
    const borders = this.#field.offsetHeight - this.#field.clientHeight;
    this.#field.style.height = `${this.#field.scrollHeight + borders}px`;
  }

  // Says how many characters are left. The server counts bytes of JSON, of which a character may take several.
  #showLeft() {
    const text = this.text.trim();
    const left = this.#bytesLeft(text);
    const isTooLong = left < 0;
    this.#left.classList.toggle('over', isTooLong);
    this.#field.ariaInvalid = String(isTooLong);
    if (left === Infinity || left > (1 - SHOW_LEFT_FROM) * this.#maxBytes) {
      setPlainText(this.#left, '');
      return;
    }
    const bytesEach = (this.#maxBytes - left) / text.length;
    const characters = Math.ceil(Math.abs(left) / bytesEach);
    setText(this.#left, isTooLong ? 'charactersOver' : 'charactersLeft', { n: characters });
  }

  // A short text needs no counting. A character of the text takes six bytes at most, as in \u0007.
  #bytesLeft(text) {
    if (text.length * 6 < this.#maxBytes / 4) return this.#maxBytes;
    const key = '-'.repeat(32); // as long as the longest of a message
    return this.#maxBytes - encoder.encode(encodeMessage({ ...this.#person, message: text, key })).length;
  }
}

function toText(value) {
  return typeof value === 'string' ? value : ''; // storage may hold anything
}
