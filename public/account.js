import { api } from './api.js'
import { element } from './element.js'

/** @typedef {{ email: string, role: string, scopes: string[] }} Account */

/** Where the next load of the page finds what to say first. */
const NOTICE = 'notice'

/**
 * @returns {Promise<Account | undefined>} undefined for an anonymous visitor
 * @throws {import('./api.js').ApiError} when the service cannot say
 */
export const readAccount = () =>
  api('GET', '/v1/accounts/me', { background: true }).catch((error) => {
    if (error.status !== 401) throw error
  })

/**
 * Why the account may not use what takes this access; undefined where it may.
 *
 * @param {Account | undefined} account
 * @param {string} access `public` or a scope
 */
export function whyNot(account, access) {
  if (access === 'public' || account?.scopes.includes(access)) return undefined
  return account
    ? `Only operators may use this. You are signed in as a ${account.role}.`
    : 'Sign in to use this.'
}

/**
 * Shows who is signed in, or a form to sign in before the first panel that takes it. Panels restart
 * with each change, so that none keeps what its reader may not see any more.
 *
 * @param {Account | undefined} account
 * @param {import('./live.js').PanelContext} context
 * @param {Error} [problem] why it is not known
 */
export function showAccount(account, context, problem) {
  const notice = sessionStorage.getItem(NOTICE)
  sessionStorage.removeItem(NOTICE)
  const main = /** @type {HTMLElement} */ (document.querySelector('main'))
  if (!account) {
    const { section, email, show } = signInForm(context)
    const refused = main.querySelector('.panel[data-refused]')
    if (refused) refused.before(section)
    else main.append(section)
    if (problem ?? notice) show(problem ?? notice ?? '')
    if (notice) email.focus()
    return
  }
  const who = /** @type {HTMLElement} */ (document.getElementById('account'))
  who.textContent = `${account.email}, ${account.role}`
  who.after(element('button', { type: 'button', className: 'small', onclick: signOut }, 'Sign out'))
  if (notice) main.focus()
}

/**
 * Loads the page again when another account is signed in, or none any more: in another tab, or
 * because the session ended. An outage says nothing of it.
 *
 * @param {Account | undefined} account who was signed in
 */
export async function checkAccount(account) {
  const now = await readAccount().catch(() => account)
  if (now?.email === account?.email && now?.role === account?.role) return
  reload(now ? 'Signed in.' : 'Your session has ended. Sign in again.')
}

/** @param {string} notice */
function reload(notice) {
  sessionStorage.setItem(NOTICE, notice)
  location.reload()
}

async function signOut() {
  // A session that has ended already is signed out, too.
  await api('DELETE', '/v1/sessions/current').catch(() => {})
  reload('Signed out.')
}

/** @param {import('./live.js').PanelContext} context */
function signInForm(context) {
  const email = element('input', { type: 'email', autocomplete: 'username', required: true })
  const password = element('input', {
    type: 'password',
    autocomplete: 'current-password',
    required: true,
  })
  const submit = element('button', { className: 'primary' }, 'Sign in')
  const status = element('p', { role: 'alert' })
  const show = context.status(status)
  const form = element(
    'form',
    { className: 'sign-in row', onsubmit: send },
    element('label', {}, 'E-mail ', email),
    element('label', {}, 'Password ', password),
    submit,
    status,
  )
  const hint = 'In development, the service prints a link when it starts that signs you in.'
  const section = element(
    'section',
    { id: 'sign-in', className: 'panel full', 'aria-labelledby': 'sign-in-title' },
    element('h2', { id: 'sign-in-title' }, 'Sign in'),
    form,
    element('p', { className: 'hint' }, hint),
  )

  /** @param {SubmitEvent} event */
  async function send(event) {
    event.preventDefault()
    submit.disabled = true
    show('')
    try {
      const body = { email: email.value, password: password.value }
      await api('POST', '/v1/sessions', { body })
      reload('Signed in.')
    } catch (error) {
      show(/** @type {Error} */ (error))
      submit.disabled = false
      password.focus()
      password.select()
    }
  }
  return { section, email, show }
}
