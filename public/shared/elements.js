// Making elements. Text enters the page here as text, and never as markup.

import { setText } from './language.js';

export function makeElement(tag, className, text = '') {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

// Makes an element with a text to translate: {key, ...parameters}.
export function makeText(tag, className, text) {
  const element = makeElement(tag, className);
  setText(element, text.key, text);
  return element;
}

export function makeButton(className, act) {
  const button = makeElement('button', className);
  button.type = 'button';
  button.addEventListener('click', act);
  return button;
}
