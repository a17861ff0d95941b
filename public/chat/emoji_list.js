// The list of emoji that opens while somebody types a short name such as :ro… into a field. The arrow keys or
// the mouse choose one, Enter or Tab takes it, Escape closes the list.
//
// It follows the combobox pattern of the ARIA practices, with the focus in the field, but for the role
// `combobox`: a field of several lines may not have it. So the number of emoji that were found is announced.
// Left out: what a short name stands for (emoji.js).

import { makeElement } from './elements.js';
import { findEmoji } from './emoji.js';
import { setPlainText, setText } from './language.js';
import { replaceText } from './text_field.js';

const MAX_SHOWN = 8;
// Scripts that put no blank between words, or often none before an emoji: there a colon behind a letter can begin
// a short name. These are Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese.
const UNSPACED = ['Han', 'Bopo', 'Hira', 'Kana', 'Hang', 'Thai', 'Laoo', 'Khmr', 'Mymr']
  .map((script) => `\\p{Script_Extensions=${script}}`).join('');
// Before the cursor: a colon that follows no word, and two characters or more. An input method for Chinese
// writes a colon as wide as a character; behind a letter that one is punctuation, as in 他说：ok.
const BEGINNING = `(?:^|[^\\p{L}\\p{N}:：])[:：]|[${UNSPACED}]:(?=\\p{L})`;
const SHORT_NAME = new RegExp(`(?:${BEGINNING})([\\p{L}\\p{N}_+-]{2,})$`, 'u');
// The keyboard on a phone's screen composes every word, a Latin one too, as an input method does; it has no keys
// that such a method and the list could both want.
const hasScreenKeyboard = matchMedia('(pointer: coarse)');

export class EmojiList {
  #field;
  #list = document.getElementById('emoji-list');
  #announced = document.getElementById('emoji-found');
  #found = []; // what the list shows, as {name, emoji}
  #chosen = 0; // the index of the one that Enter takes
  #start = 0; // where in the field the short name begins, with its colon
  #end = 0;

  // Call this before other handlers of the field's keys are added: the list takes keys away from them.
  constructor(field) {
    this.#field = field;
    field.addEventListener('keydown', (event) => this.#handleKey(event));
    field.addEventListener('input', ({ isComposing }) => {
      if (isComposing && !hasScreenKeyboard.matches) this.close();
      else this.#update();
    });
    field.addEventListener('compositionend', () => this.#update());
    field.addEventListener('click', () => this.#update());
    field.addEventListener('blur', () => this.close());
    document.addEventListener('selectionchange', () => {
      const hasMoved = this.#field.selectionStart !== this.#end || this.#field.selectionEnd !== this.#end;
      if (this.#isOpen && hasMoved) this.#update();
    });
    // The list must not take the focus from the field.
    this.#list.addEventListener('mousedown', (event) => event.preventDefault());
    this.#list.addEventListener('click', ({ target }) => {
      const option = target.closest('li');
      if (option) this.#take([...this.#list.children].indexOf(option));
    });
  }

  get #isOpen() {
    return this.#found.length > 0;
  }

  #update() {
    const { value, selectionStart, selectionEnd } = this.#field;
    const typed = selectionStart === selectionEnd && SHORT_NAME.exec(value.slice(0, selectionStart));
    if (!typed) {
      this.close();
      return;
    }
    const [, name] = typed;
    this.#start = selectionStart - name.length - 1;
    this.#end = selectionStart;
    this.#found = findEmoji(name, MAX_SHOWN);
    this.#show();
  }

  #show() {
    const options = this.#found.map(({ name, emoji }, index) => {
      const option = makeElement('li', '');
      option.id = `emoji-${index}`;
      option.role = 'option';
      option.append(makeElement('span', 'emoji', emoji), ` :${name}:`);
      return option;
    });
    this.#list.replaceChildren(...options);
    if (!this.#isOpen) {
      this.close();
      return;
    }
    this.#list.hidden = false;
    setText(this.#announced, 'emojiFound', { n: this.#found.length });
    this.#choose(0);
  }

  #choose(index) {
    this.#chosen = (index + this.#found.length) % this.#found.length;
    for (const [i, option] of [...this.#list.children].entries())
      option.ariaSelected = String(i === this.#chosen);
    this.#list.children[this.#chosen].scrollIntoView({ block: 'nearest' });
    this.#field.setAttribute('aria-activedescendant', `emoji-${this.#chosen}`);
  }

  close() {
    this.#found = [];
    this.#list.hidden = true;
    this.#list.replaceChildren();
    setPlainText(this.#announced, '');
    this.#field.removeAttribute('aria-activedescendant');
  }

  #handleKey(event) {
    if (!this.#isOpen || event.isComposing || event.ctrlKey || event.altKey || event.metaKey) return;
    const actions = {
      ArrowDown: () => this.#choose(this.#chosen + 1),
      ArrowUp: () => this.#choose(this.#chosen - 1),
      Enter: () => this.#take(this.#chosen),
      Tab: () => this.#take(this.#chosen),
      Escape: () => this.close(),
    };
    if (event.shiftKey || !Object.hasOwn(actions, event.key)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    actions[event.key]();
  }

  // Replaces the short name so far, with its colon, by the emoji.
  #take(index) {
    const { emoji } = this.#found[index];
    const isBeforeSpace = /^\s/.test(this.#field.value.slice(this.#end));
    this.close();
    replaceText(this.#field, isBeforeSpace ? emoji : `${emoji} `, this.#start, this.#end);
  }
}
