// The list of emoji that opens while somebody types a short name such as :ro… into a field. The arrow keys or
// the mouse choose one, Enter or Tab takes it, Escape closes the list.
//
// It follows the combobox pattern of the ARIA practices, with the focus in the field, but for the role
// `combobox`: a field of several lines may not have it. So the number of emoji that were found is announced.
// Left out: what a short name stands for (emoji.js).

import { findEmoji } from './emoji.js';
import { setText } from './language.js';
import { makeElement } from './message_item.js';

const MAX_SHOWN = 8;
const SHORT_NAME = /(?:^|[^\p{L}\p{N}:]):([\p{L}\p{N}_+-]{2,})$/u; // before the cursor: two characters or more

export class EmojiList {
  #field;
  #list = document.getElementById('emoji-list');
  #announced = document.getElementById('emoji-found');
  #found = []; // what the list shows, as {name, emoji}
  #chosen = 0; // the index of the one that Enter takes
  #typed = ''; // the short name so far

  // Call this before other handlers of the field's keys are added: the list takes keys away from them.
  constructor(field) {
    this.#field = field;
    field.addEventListener('keydown', (event) => this.#handleKey(event));
    field.addEventListener('input', (event) => event.isComposing || this.#update());
    field.addEventListener('click', () => this.#update());
    field.addEventListener('blur', () => this.#close());
    // The list must not take the focus from the field.
    this.#list.addEventListener('pointerdown', (event) => event.preventDefault());
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
      this.#close();
      return;
    }
    [, this.#typed] = typed;
    this.#found = findEmoji(this.#typed, MAX_SHOWN);
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
    this.#list.hidden = !this.#isOpen;
    if (!this.#isOpen) {
      this.#close();
      return;
    }
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

  #close() {
    if (this.#list.hidden && !this.#isOpen) return;
    this.#found = [];
    this.#list.hidden = true;
    this.#list.replaceChildren();
    this.#announced.textContent = '';
    delete this.#announced.dataset.text;
    this.#field.removeAttribute('aria-activedescendant');
  }

  #handleKey(event) {
    if (!this.#isOpen || event.isComposing || event.ctrlKey || event.altKey || event.metaKey) return;
    const actions = {
      ArrowDown: () => this.#choose(this.#chosen + 1),
      ArrowUp: () => this.#choose(this.#chosen - 1),
      Enter: () => this.#take(this.#chosen),
      Tab: () => this.#take(this.#chosen),
      Escape: () => this.#close(),
    };
    if (event.shiftKey || !Object.hasOwn(actions, event.key)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    actions[event.key]();
  }

  // Replaces the short name so far, with its colon, by the emoji.
  #take(index) {
    const { emoji } = this.#found[index];
    const end = this.#field.selectionStart;
    this.#close();
    this.#field.setRangeText(`${emoji} `, end - this.#typed.length - 1, end, 'end');
    this.#field.dispatchEvent(new Event('input', { bubbles: true }));
  }
}
