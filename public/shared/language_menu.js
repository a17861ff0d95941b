// The menu of languages. The choice is kept on the device.
//
// Left out: what a language changes (language.js).

import { setLanguage } from './language.js';
import { deviceStorage } from './storage.js';
import { NAMES } from './texts.js';

// Fills the menu in, and sets the language that was chosen before, or that of the browser. `onChange` is called
// with the page's language, now and whenever it changes. Returns a function that chooses one.
export function prepareLanguageMenu(menu, onChange = () => {}) {
  const show = (wanted) => {
    menu.value = setLanguage(wanted);
    onChange(menu.value);
  };
  const choose = (language) => {
    deviceStorage.set('language', language);
    show(language);
  };
  menu.append(...Object.entries(NAMES).map(([language, name]) => new Option(name, language)));
  menu.addEventListener('change', () => choose(menu.value));
  show(deviceStorage.get('language'));
  return choose;
}
