// What the page remembers. Storage is a nicety: a browser may have none, forbid it, or be full, and each
// of these can show at any access. Nothing here ever throws, and the page works without.

const PLACE = new URL('.', document.baseURI).pathname; // two chats on one site do not share a memory

class Memory {
  #name;

  constructor(name) {
    this.#name = name;
  }

  // What was kept under this name, or undefined.
  get(name) {
    return this.#attempt((storage) => JSON.parse(storage.getItem(PLACE + name) ?? 'null') ?? undefined);
  }

  // Tells whether the value, anything that JSON can say, is kept now.
  set(name, value) {
    return this.#attempt((storage) => {
      storage.setItem(PLACE + name, JSON.stringify(value));
      return true;
    }) ?? false;
  }

  delete(name) {
    this.#attempt((storage) => storage.removeItem(PLACE + name));
  }

  // The names in use that begin so.
  names(beginning) {
    const whole = PLACE + beginning;
    const names = this.#attempt((storage) => Array.from(storage, (_, i) => storage.key(i)));
    return (names ?? []).filter((name) => name?.startsWith(whole)).map((name) => name.slice(PLACE.length));
  }

  #attempt(action) {
    try {
      return action(window[this.#name]); // looked up each time: the lookup itself may be what throws
    } catch {
      return undefined;
    }
  }
}

export const tabStorage = new Memory('sessionStorage'); // survives a reload, and is the tab's own
export const deviceStorage = new Memory('localStorage'); // survives the tab as well
