import { ApiError } from '../../api.js'

/**
 * Sends a file, and says how far it is, which `fetch` cannot.
 *
 * @param {string} url
 * @param {Blob} file
 * @param {{ signal: AbortSignal, onProgress: (fraction: number) => void }} options
 * @returns {Promise<any>} the JSON of the answer
 * @throws {ApiError} for an answer that is a problem, or none; the signal's reason when it aborts
 */
export function upload(url, file, { signal, onProgress }) {
  const request = new XMLHttpRequest()
  request.open('POST', url)
  request.setRequestHeader('Content-Type', 'text/csv')
  request.responseType = 'json'
  request.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total)
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => {
      request.abort()
      reject(signal.reason)
    })
    request.onerror = () => reject(new ApiError('The service cannot be reached'))
    request.onload = () => {
      const { status, statusText, response } = request
      if (status < 300) resolve(response)
      else reject(new ApiError(response?.detail ?? statusText, { ...response, status }))
    }
    request.send(file)
  })
}
