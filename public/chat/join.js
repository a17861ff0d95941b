// The form to join: it checks what was entered, remembers it on the device, and says who can see the email.
//
// Left out: what joining does (app.js), and how to be forgotten (settings.js).

import { setPlainText, setText } from './language.js';
import { deviceStorage, tabStorage } from './storage.js';

const byId = (id) => document.getElementById(id);
const form = byId('join');
const email = byId('email');
const username = byId('username');

// Fills the form in, and calls `onJoin({email, username})` when somebody joins: now, where they return.
export function prepareForm(onJoin) {
  const person = tabStorage.get('person') ?? deviceStorage.get('person') ?? {};
  email.value = toText(person.email);
  username.value = toText(person.username);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    submit(onJoin);
  });
  if (isReturning()) submit(onJoin);
}

// Says who can see the email. `hidesEmails` is what the server does with it; undefined where that is unknown.
export function showWhoSeesEmail(hidesEmails) {
  const key = { true: 'emailHidden', false: 'emailShown' }[hidesEmails] ?? 'emailUnknown';
  setText(byId('email-note'), key);
}

function submit(onJoin) {
  email.value = email.value.trim();
  username.value = username.value.trim();
  const invalid = [email, username].find((field) => errorOf(field));
  for (const field of [email, username]) field.ariaInvalid = String(field === invalid);
  if (invalid) {
    invalid.after(byId('error'));
    setText(byId('error'), errorOf(invalid), { limit: invalid.maxLength });
    invalid.focus();
    return;
  }
  setPlainText(byId('error'), '');
  const person = { email: email.value, username: username.value };
  deviceStorage.set('person', person);
  tabStorage.set('person', person); // another tab may join as somebody else
  tabStorage.set('joined', true);
  onJoin(person);
}

// Returns what is wrong with a field as a key of a text, or null. The attribute `maxlength` is not enough: it
// does not stop a script or a browser that fills the field in, and it counts an emoji as two characters.
function errorOf({ id, value, maxLength }) {
  if (value.trim() === '') return `${id}Missing`;
  return [...value.trim()].length > maxLength ? `${id}TooLong` : null;
}

// Somebody who reloads the page wants to be back in the chat. A browser that has unloaded the page to save
// memory does the same. Somebody who opens the address anew sees the form, filled in, and may join as another
// person.
function isReturning() {
  if (tabStorage.get('joined') !== true || errorOf(email) || errorOf(username)) return false;
  const { type } = performance.getEntriesByType('navigation')[0] ?? {};
  return type === 'reload' || type === 'back_forward' || document.wasDiscarded;
}

function toText(value) {
  return typeof value === 'string' ? value : ''; // storage may hold anything
}
