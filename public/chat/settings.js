// The settings: the language, notifications, pictures, and how to be forgotten. They are kept on the device.
//
// Left out: what each of them does (language_menu.js, attention.js, avatar.js).

import { notificationState, turnNotifications } from './attention.js';
import { allowPictures, picturesAllowed } from './avatar.js';
import { makeButton, makeElement } from './elements.js';
import { prepareLanguageMenu } from './language_menu.js';
import { forgetOutbox } from './outbox.js';
import { deviceStorage, tabStorage } from './storage.js';
import { NAMES } from './texts.js';

const KEPT = ['person', 'joined', 'draft', 'language', 'notifications', 'pictures']; // by all modules
const byId = (id) => document.getElementById(id);
const dialog = byId('settings');
const notifications = byId('notifications');

// Fills the settings in. `onLanguage` is called when the page gets a language, and `onForget` when
// everything was removed from the device.
export function prepareSettings({ onLanguage, onForget }) {
  byId('show-settings').addEventListener('click', () => {
    showNotificationState(notificationState());
    dialog.showModal();
  });
  dialog.addEventListener('click', ({ target }) => {
    if (target === dialog) dialog.close(); // a click beside the dialog, which its form fills
  });
  prepareLanguages(onLanguage);
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
function prepareLanguages(onLanguage) {
  const buttons = Object.entries(NAMES).map(([language, name]) => {
    const button = makeButton('', () => choose(language));
    button.append(makeElement('span', '', name));
    button.lang = language;
    return button;
  });
  byId('languages').append(...buttons);
  const choose = prepareLanguageMenu(byId('language'), (language) => {
    for (const button of buttons) button.ariaPressed = String(button.lang === language);
    onLanguage();
  });
}

function showNotificationState(state) {
  notifications.checked = state === 'on';
  notifications.disabled = state === 'denied' || state === 'impossible';
  byId('notifications-denied').hidden = state !== 'denied';
  byId('notifications-impossible').hidden = state !== 'impossible';
}
