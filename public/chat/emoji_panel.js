// The panel of all emoji, which a button beside a field opens: by group, or those whose short names fit what one
// types. The arrow keys, the mouse or a finger choose one; it goes to the cursor of the field.
//
// It follows the combobox pattern of the ARIA practices: the focus stays in the field to search in. All is made
// when the panel is opened for the first time, so the page's start does not wait for it. Left out: what a short
// name stands for, and the groups (emoji.js).

import { makeElement, makeText } from './elements.js';
import { allEmoji, findEmoji, loadGroups, shortNamesOf } from './emoji.js';
import { setPlainText, setText } from './language.js';
import { replaceText } from './text_field.js';

const byId = (id) => document.getElementById(id);
// Where a keyboard on the screen would come with the focus of a field, and cover half of the panel.
const hasScreenKeyboard = matchMedia('(pointer: coarse)');

export class EmojiPanel {
  #field;
  #panel = byId('emoji-panel');
  #button = byId('show-emoji');
  #search = byId('emoji-search');
  #list = byId('all-emoji');
  #groups; // the elements of all groups, once they are made
  #chosen = null; // the option that Enter takes
  #isReached = false; // whether the user has gone to it, by keys

  // Takes the field that the emoji go to.
  constructor(field) {
    this.#field = field;
    this.#button.addEventListener('click', () => (this.isOpen ? this.#leave() : this.#open()));
    this.#search.addEventListener('input', () => this.#show());
    this.#panel.addEventListener('keydown', (event) => this.#handleKey(event));
    this.#button.addEventListener('keydown', ({ key }) => {
      if (key === 'Escape') this.close();
    });
    this.#list.addEventListener('mousedown', (event) => event.preventDefault()); // it would take the focus
    this.#list.addEventListener('click', ({ target }) => this.#take(target.closest('[role=option]')));
    this.#list.addEventListener('mouseover', ({ target }) => {
      const option = target.closest('[role=option]');
      if (option) this.#choose(option);
    });
    byId('close-emoji').addEventListener('click', () => this.#leave());
    const closeBehind = ({ target }) => {
      if (!this.#panel.contains(target) && !this.#button.contains(target)) this.close();
    };
    document.addEventListener('pointerdown', closeBehind);
    document.addEventListener('focusin', closeBehind);
  }

  get isOpen() {
    return !this.#panel.hidden;
  }

  get hasFocus() {
    return this.#panel.contains(document.activeElement);
  }

  // Allows or forbids to open it.
  allow(isAllowed) {
    this.#button.disabled = !isAllowed;
    if (!isAllowed) this.close();
  }

  close() {
    this.#panel.hidden = true;
    this.#button.ariaExpanded = 'false';
  }

  #leave() {
    this.close();
    this.#button.focus();
  }

  async #open() {
    this.#panel.hidden = false;
    this.#button.ariaExpanded = 'true';
    this.#search.value = '';
    (hasScreenKeyboard.matches ? this.#list : this.#search).focus();
    this.#groups ??= makeGroups(await loadGroups());
    if (this.isOpen) this.#show();
  }

  // Shows all emoji by group, or those that are searched for.
  #show() {
    if (!this.#groups) return; // they are still loading, and shown then
    const wanted = this.#search.value.trim().replaceAll(':', '').replaceAll(' ', '_');
    const found = wanted ? findEmoji(wanted, Infinity).map(({ emoji }) => emoji) : [];
    this.#list.replaceChildren(...(wanted ? found.map(makeOption) : this.#groups));
    this.#list.classList.toggle('found', wanted !== '');
    this.#list.scrollTop = 0;
    this.#isReached = false;
    this.#choose(wanted ? this.#list.firstElementChild : null);
    if (wanted) setText(byId('emoji-count'), 'emojiCount', { n: found.length });
    else setPlainText(byId('emoji-count'), '');
  }

  #choose(option) {
    this.#chosen?.removeAttribute('aria-selected');
    this.#chosen?.removeAttribute('id');
    this.#chosen = option;
    byId('emoji-name').textContent = option ? `${option.textContent} ${namesIn(option)}` : '';
    if (!option) {
      this.#search.removeAttribute('aria-activedescendant');
      return;
    }
    option.ariaSelected = 'true';
    option.id = 'chosen-emoji';
    this.#search.setAttribute('aria-activedescendant', option.id);
  }

  // Left and right are for the text that is searched for, until the user has gone down to the emoji.
  #handleKey(event) {
    if (event.isComposing || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    const actions = {
      ArrowDown: () => this.#moveByRow(1),
      ArrowUp: () => this.#moveByRow(-1),
      ArrowRight: () => this.#move(1),
      ArrowLeft: () => this.#move(-1),
      Enter: () => this.#take(this.#chosen),
      Escape: () => this.#leave(),
    };
    if (!Object.hasOwn(actions, event.key)) return;
    const isInText = ['ArrowLeft', 'ArrowRight'].includes(event.key) && this.#search.value !== '' && !this.#isReached;
    const isOnButton = event.key === 'Enter' && event.target.closest('button');
    if (isInText || isOnButton) return;
    event.preventDefault();
    event.stopPropagation();
    actions[event.key]();
  }

  get #options() {
    return [...this.#list.querySelectorAll('[role=option]')];
  }

  #move(step) {
    const options = this.#options;
    const index = options.indexOf(this.#chosen) + step;
    this.#reach(options[Math.max(0, Math.min(index, options.length - 1))]);
  }

  // Goes to the emoji above or below, or of a shorter row the last.
  #moveByRow(step) {
    const { offsetTop, offsetLeft } = this.#chosen ?? {};
    const options = step > 0 ? this.#options : this.#options.reverse();
    const behind = options.slice(options.indexOf(this.#chosen) + 1);
    const next = behind.find((option) => option.offsetTop !== offsetTop);
    if (!this.#chosen || !next) {
      this.#reach(this.#chosen ?? options[0]);
      return;
    }
    const row = behind.filter((option) => option.offsetTop === next.offsetTop);
    const isNear = (option) => option.offsetLeft <= offsetLeft;
    this.#reach(step > 0 ? row.findLast(isNear) : row.find(isNear));
  }

  #reach(option) {
    if (!option) return;
    this.#choose(option);
    this.#isReached = true;
    option.scrollIntoView({ block: 'nearest' });
  }

  #take(option) {
    if (!option) return;
    this.close();
    replaceText(this.#field, option.textContent, this.#field.selectionStart, this.#field.selectionEnd);
  }
}

// Makes the elements of all groups. Without the file of the groups all emoji are in one.
function makeGroups(groups) {
  return Object.entries(groups ?? { all: allEmoji() }).map(([name, emoji], index) => {
    const group = makeElement('div', 'group');
    group.role = 'group';
    const title = makeText('div', 'title', { key: `emojiGroup_${name}` });
    title.role = 'presentation';
    title.id = `emoji-group-${index}`;
    group.setAttribute('aria-labelledby', title.id);
    group.append(title, ...emoji.map(makeOption));
    return group;
  });
}

function makeOption(emoji) {
  const option = makeElement('div', 'option', emoji);
  option.role = 'option';
  option.ariaLabel = shortNamesOf(emoji)[0].replaceAll('_', ' ');
  return option;
}

function namesIn(option) {
  return shortNamesOf(option.textContent).map((name) => `:${name}:`).join(' ');
}
