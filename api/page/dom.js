// Elements. What comes from the service goes in as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** An element: el("td", {class: "n", onclick: f}, "text", child…). An attribute of undefined or false is left out. */
export function el(name, about = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(about)) set(node, key, value);
  node.append(...children);
  return node;
}

function set(node, key, value) {
  if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
  else if (value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
}

/** Change an element's text where it is another one: what stays as it is disturbs no selection and no reader. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** One child for each item, in their order. A child whose key stays is kept, with the focus that may be in it. */
export function keyed(parent, items, keyOf, make, update = () => {}) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const key = keyOf(item);
    const child = old.get(key) ?? make(item);
    old.delete(key);
    child.dataset.key = key;
    update(child, item);
    return child;
  });
  for (const gone of old.values()) gone.remove();
  wanted.forEach((child, index) => {
    const there = parent.children[index] ?? null;
    if (there !== child) parent.insertBefore(child, there);
  });
}

/** Options of a select, which keeps what was chosen while that is among them. Items: [value, text]. */
export function options(select, items) {
  const chosen = select.value;
  keyed(select, items, ([value]) => value, ([value]) => el("option", { value }), (node, [, text]) => say(node, text));
  if (items.some(([value]) => value === chosen)) select.value = chosen;
}
