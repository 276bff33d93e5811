/**
 * Makes an element: `element('button', { type: 'button', onclick: stop }, 'Stop')`. Text is text,
 * never markup.
 *
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Record<string, any>} [properties] of the element; those with a dash (`aria-label`,
 * `data-tone`) are attributes
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Name]}
 */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes('-') || key === 'role') made.setAttribute(key, value)
    else Object.assign(made, { [key]: value })
  }
  made.append(...children)
  return made
}

/**
 * What may be wider or longer than its place: keyboards must reach it, so it needs a name.
 *
 * @param {string} name
 * @param {...(Node | string)} children
 */
export const scrollRegion = (name, ...children) =>
  element(
    'div',
    { className: 'scroll', tabIndex: 0, role: 'region', 'aria-label': name },
    ...children,
  )
