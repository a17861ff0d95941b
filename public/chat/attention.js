// What draws the attention of somebody who is looking at something else: the number of unread messages in the
// title, a dot on the icon, and a notification for those who have asked for it.
//
// Left out: the line before the first unread message (message_list.js).

import { replaceShortNames } from './emoji.js';
import { currentLanguage, translate } from './language.js';
import { shorten } from './message_item.js';
import { deviceStorage } from './storage.js';

const MAX_NOTIFIED = 200; // characters
const icon = document.querySelector('link[rel=icon]');

let unread = 0;
let isLooking = true;

// Calls `onLook` when the user looks at the page again, and `onLeave` when they look at something else.
export function watchAttention({ onLook, onLeave }) {
  const update = () => {
    const nowLooking = !document.hidden && document.hasFocus();
    if (nowLooking === isLooking) return;
    isLooking = nowLooking;
    if (isLooking) {
      showUnread(0);
      onLook();
    } else {
      onLeave();
    }
  };
  isLooking = !document.hidden && document.hasFocus();
  document.addEventListener('visibilitychange', update);
  addEventListener('focus', update);
  addEventListener('blur', update);
  addEventListener('pageshow', update);
}

// Notes a message of somebody else. Returns whether it is the first that the user has not seen.
export function noteMessage(message) {
  if (isLooking) return false;
  showUnread(unread + 1);
  if (wantsNotifications()) notify(message);
  return unread === 1;
}

function showUnread(count) {
  unread = count;
  updateTitle();
  icon.href = unread > 0 ? 'favicon-unread.svg' : 'favicon.svg';
}

// Also called when the language has changed.
export function updateTitle() {
  const title = translate('title');
  document.title = unread > 0 ? `(${unread.toLocaleString(currentLanguage())}) ${title}` : title;
}

// Notifications

// Returns whether this browser can show notifications for this page: on, off, denied or impossible.
export function notificationState() {
  if (!('Notification' in window) || !isSecureContext) return 'impossible';
  if (Notification.permission === 'denied') return 'denied';
  return wantsNotifications() ? 'on' : 'off';
}

function wantsNotifications() {
  return deviceStorage.get('notifications') === true && globalThis.Notification?.permission === 'granted';
}

// Turns notifications on or off. The browser asks the user the first time. Returns the state afterwards.
export async function turnNotifications(isOn) {
  if (isOn && (await Notification.requestPermission()) !== 'granted') return notificationState();
  deviceStorage.set('notifications', isOn);
  return notificationState();
}

// A later notification replaces an earlier one that was not looked at.
function notify({ username, message }) {
  const title = translate('notification', {
    username: shorten(username, MAX_NOTIFIED) || translate('noName'),
    title: translate('title'),
  });
  const body = shorten(replaceShortNames(message), MAX_NOTIFIED);
  try {
    const notification = new Notification(title, { body, tag: 'chat', icon: 'favicon.svg' });
    notification.onclick = () => {
      window.focus();
      notification.close();
    };
  } catch (error) {
    console.warn('The browser shows no notification:', error); // Chrome on Android forbids it to pages
  }
}
