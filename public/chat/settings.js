// The settings: the language, notifications, pictures, and how to be forgotten. They are kept on the device.
//
// Left out: what each of them does (language.js, attention.js, avatar.js).

import { notificationState, turnNotifications } from './attention.js';
import { allowPictures, picturesAllowed } from './avatar.js';
import { likeBrowser, setLanguage } from './language.js';
import { makeButton, makeElement } from './message_item.js';
import { forgetOutbox } from './outbox.js';
import { deviceStorage, tabStorage } from './storage.js';
import { NAMES } from './texts.js';

const KEPT = ['person', 'joined', 'draft', 'avatar', 'language', 'notifications', 'pictures']; // by all modules
const byId = (id) => document.getElementById(id);
const dialog = byId('settings');
const select = byId('language');
const notifications = byId('notifications');

// Fills the settings in. `onLanguage` is called when the page has another language, and `onForget` when
// everything was removed from the device.
export function prepareSettings({ onLanguage, onForget }) {
  byId('show-settings').addEventListener('click', () => {
    showNotificationState(notificationState());
    dialog.showModal();
  });
  dialog.addEventListener('click', ({ target }) => {
    if (target === dialog) dialog.close(); // a click beside the dialog, which its form fills
  });
  const choose = (language) => {
    deviceStorage.set('language', language);
    setLanguage(language);
    showLanguage(language);
    onLanguage();
  };
  prepareLanguages(choose);
  notifications.addEventListener('change', async () => {
    showNotificationState(await turnNotifications(notifications.checked));
  });
  byId('pictures').checked = picturesAllowed();
  byId('pictures').addEventListener('change', ({ target }) => allowPictures(target.checked));
  byId('forget').addEventListener('click', () => {
    for (const storage of [tabStorage, deviceStorage]) for (const name of KEPT) storage.delete(name);
    forgetOutbox();
    onForget();
  });
}

// There is a menu in the settings, and before joining a button for each language.
function prepareLanguages(choose) {
  const languages = Object.entries(NAMES);
  select.append(...languages.map(([language, name]) => new Option(name, language)));
  select.addEventListener('change', () => choose(select.value));
  const buttons = languages.map(([language, name]) => {
    const button = makeButton('', () => choose(language));
    button.append(makeElement('span', '', name));
    button.lang = language;
    return button;
  });
  byId('languages').append(...buttons);
  const chosen = deviceStorage.get('language');
  setLanguage(chosen);
  showLanguage(Object.hasOwn(NAMES, chosen ?? '') ? chosen : likeBrowser());
}

function showLanguage(language) {
  select.value = language;
  for (const button of byId('languages').children) button.ariaPressed = String(button.lang === language);
}

function showNotificationState(state) {
  notifications.checked = state === 'on';
  notifications.disabled = state === 'denied' || state === 'impossible';
  byId('notifications-denied').hidden = state !== 'denied';
  byId('notifications-impossible').hidden = state !== 'impossible';
}
