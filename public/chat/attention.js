// What draws the attention of somebody who is looking at something else: the number of unread messages in the
// title, a dot on the icon, and a notification for those who have asked for it.
//
// Left out: the line before the first unread message (message_list.js).

import { replaceShortNames } from './emoji.js';
import { setText, translate } from './language.js';
import { shorten } from './message_item.js';
import { deviceStorage } from './storage.js';

const MAX_NOTIFIED = 200; // characters
const title = document.querySelector('title');
const icon = document.querySelector('link[rel=icon]');

let unread = 0;
let isLooking = true;
let isWanted = false; // whether the user has turned notifications on, for a browser that stores nothing
let isImpossible = false; // whether the browser has shown none although it was to

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
  setText(title, unread > 0 ? 'titleUnread' : 'title', { n: unread, title: { key: 'title' } });
  icon.href = unread > 0 ? 'favicon-unread.svg' : 'favicon.svg';
}

// Notifications

// Returns whether this browser can show notifications for this page: on, off, denied or impossible.
export function notificationState() {
  if (!('Notification' in window) || !isSecureContext || isImpossible) return 'impossible';
  if (Notification.permission === 'denied') return 'denied';
  return wantsNotifications() ? 'on' : 'off';
}

function wantsNotifications() {
  const isOn = deviceStorage.get('notifications') ?? isWanted;
  return isOn === true && globalThis.Notification?.permission === 'granted';
}

// Turns notifications on or off. The browser asks the user the first time. Returns the state afterwards.
export async function turnNotifications(isOn) {
  if (isOn && (await Notification.requestPermission()) !== 'granted') return notificationState();
  isWanted = isOn;
  deviceStorage.set('notifications', isOn);
  return notificationState();
}

// A later notification replaces an earlier one that was not looked at.
function notify({ username, message }) {
  const heading = translate('notification', {
    username: shorten(username, MAX_NOTIFIED) || { key: 'noName' },
    title: { key: 'title' },
  });
  const body = shorten(replaceShortNames(message), MAX_NOTIFIED);
  try {
    const notification = new Notification(heading, { body, tag: 'chat', icon: 'favicon.svg' });
    notification.onclick = () => {
      window.focus();
      notification.close();
    };
  } catch (error) {
    isImpossible = true; // Chrome on Android forbids it to pages, and says so only now
    console.warn('The browser shows no notification:', error);
  }
}
