import { element } from '../../element.js'
import { bytes } from '../../format.js'
import { exampleOrders } from './example.js'

/**
 * The file, the columns, and the buttons.
 *
 * @param {object} listeners
 * @param {() => void} listeners.onChoose
 * @param {() => void} listeners.onInput
 * @param {(file: File, query: URLSearchParams) => void} listeners.onSend
 */
export function createForm({ onChoose, onInput, onSend }) {
  const file = element('input', {
    type: 'file',
    className: 'visually-hidden',
    accept: '.csv,.tsv,.txt,text/csv',
    onchange: () => choose(file.files),
  })
  const chosen = element('span', { id: 'report-file' }, 'Drop a CSV here, or choose one')
  const drop = element('label', { className: 'drop' }, file, chosen)
  const groupBy = element('input', { name: 'groupBy', placeholder: 'region', autocomplete: 'off' })
  const value = element('input', { name: 'value', placeholder: 'total', autocomplete: 'off' })
  const submit = element(
    'button',
    { className: 'primary', 'aria-describedby': 'report-file report-why-not' },
    'Summarise',
  )
  const example = element('button', { type: 'button', onclick: takeExample }, 'Take an example')
  const whyNot = element('span', { className: 'hint', id: 'report-why-not' })
  const form = element(
    'form',
    { className: 'report-form', onsubmit: send, oninput: onInput },
    drop,
    element('label', {}, 'Group by ', groupBy),
    element('label', {}, 'Sum up ', value),
    element('div', { className: 'row' }, submit, example, whyNot),
  )
  /** The file that is under way. @type {string | undefined} */
  let busyWith
  explain()

  drop.ondragover = (event) => {
    event.preventDefault()
    drop.dataset.over = ''
  }
  drop.ondragleave = () => delete drop.dataset.over
  drop.ondrop = (event) => {
    event.preventDefault()
    delete drop.dataset.over
    choose(event.dataTransfer?.files ?? null)
  }

  /** @param {FileList | null} files */
  function choose(files) {
    const [first] = files ?? []
    if (!first) return
    file.files = files
    chosen.textContent = `${first.name}, ${bytes(first.size)}`
    explain()
    onChoose()
  }

  function takeExample() {
    const transfer = new DataTransfer()
    transfer.items.add(exampleOrders())
    groupBy.value = 'region'
    value.value = 'total'
    choose(transfer.files)
  }

  /** @param {SubmitEvent} event */
  function send(event) {
    event.preventDefault()
    const [first] = file.files ?? []
    const columns = [groupBy, value]
      .filter((field) => field.value !== '')
      .map((field) => [field.name, field.value])
    if (first) onSend(first, new URLSearchParams(columns))
  }

  function explain() {
    const nothing = file.files?.length ? '' : 'Choose a file first'
    whyNot.textContent = busyWith ? `Wait for ${busyWith}, or cancel it` : nothing
    submit.disabled = whyNot.textContent !== ''
  }

  return {
    form,
    /** @param {string | undefined} name of the file that is under way */
    setBusy(name) {
      busyWith = name
      explain()
    },
  }
}
