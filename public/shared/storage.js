// What the page keeps in the browser: values that JSON can express, under names of their own.
//
// The page works without storage. A browser may have none, may forbid it, or may have filled it, and any
// access can be the one that fails. So no method here throws: a value that cannot be read is undefined, and
// `set` returns whether the value is stored. Left out: what is kept. Each module that keeps something decides that.

// All pages of one site share its storage, so each page puts its own path before the names.
const PATH = new URL('.', document.baseURI).pathname;

class JsonStorage {
  #property;

  // Takes the name of the browser's storage, a property of `window`.
  constructor(property) {
    this.#property = property;
  }

  // Returns the value stored under this name, or undefined.
  get(name) {
    return this.#attempt((storage) => JSON.parse(storage.getItem(PATH + name) ?? 'null') ?? undefined);
  }

  // Returns whether the value is stored now.
  set(name, value) {
    const isStored = this.#attempt((storage) => {
      storage.setItem(PATH + name, JSON.stringify(value));
      return true;
    });
    return isStored ?? false;
  }

  delete(name) {
    this.#attempt((storage) => storage.removeItem(PATH + name));
  }

  // Returns the stored names that begin with this prefix.
  names(prefix) {
    const keys = this.#attempt((storage) => Array.from(storage, (_, i) => storage.key(i))) ?? [];
    const found = keys.filter((key) => key?.startsWith(PATH + prefix));
    return found.map((key) => key.slice(PATH.length));
  }

  // Returns what the action returns, or undefined where it throws.
  #attempt(action) {
    try {
      return action(window[this.#property]); // looked up each time, as the lookup itself may throw
    } catch {
      return undefined;
    }
  }
}

export const tabStorage = new JsonStorage('sessionStorage'); // survives a reload; each tab has its own
export const deviceStorage = new JsonStorage('localStorage'); // survives the tab too; all tabs share it
