// What the browser keeps for the page. It may keep nothing, where its owner set it so.

/** A value of a storage ("localStorage", "sessionStorage"), or an empty string. */
export function recall(storage, name) {
  try {
    return window[storage].getItem(`riacho.${name}`) ?? "";
  } catch {
    return "";
  }
}

/** Keep a value; an empty one is forgotten. */
export function keep(storage, name, value) {
  try {
    if (value) window[storage].setItem(`riacho.${name}`, value);
    else window[storage].removeItem(`riacho.${name}`);
  } catch {
    // Then it lasts as long as the page is open.
  }
}
