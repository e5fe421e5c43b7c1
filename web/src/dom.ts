/** Small typed DOM builders. Text goes in as text, never as markup. */

export type Attributes = Record<string, string | boolean | EventListener>;

/** An element with attributes, listeners (`onclick`) and children. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Says a line to screen readers without moving the focus. */
export function announce(text: string): void {
  const live = document.getElementById("announcer");
  if (live) live.textContent = text;
}

/** Replaces the page's content and moves the focus to its heading, so that keyboard users start there. */
export function show(...children: Node[]): void {
  const app = document.getElementById("app");
  if (!app) throw new Error("the page has no #app");
  app.replaceChildren(...children);
  const heading = app.querySelector("h1");
  if (heading) {
    heading.tabIndex = -1;
    heading.focus();
  }
}
