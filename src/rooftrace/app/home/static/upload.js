// Upload a scene to /v1/jobs, which makes it a job. The page for images uses this, too.

import { sentence } from "../../words.js";

const JOBS = new URL("v1/jobs", document.baseURI).href;

// XMLHttpRequest reports the progress of an upload; fetch does not. `progress` gets the bytes that
// were sent, and those of all. Returns the request, which can be aborted, and a promise of the job.
export function uploadScene(file, options, progress) {
  const xhr = new XMLHttpRequest();
  const job = new Promise((resolve, reject) => {
    const query = new URLSearchParams({ filename: file.name.slice(-255), ...options });
    xhr.open("POST", `${JOBS}?${query}`);
    xhr.setRequestHeader("Content-Type", "application/octet-stream");
    xhr.upload.onprogress = (event) => progress(event.loaded, event.total);
    xhr.onabort = () => reject(new DOMException("The upload was cancelled.", "AbortError"));
    xhr.onerror = () => reject(new Error(`The upload of ${file.name} failed: the connection was lost, or the server refuses files of this size.`));
    xhr.onload = () => {
      let body = null;
      try { body = JSON.parse(xhr.responseText); } catch { /* handled below */ }
      if (xhr.status === 202) resolve(body);
      else reject(new Error(body ? sentence(body) : `The server answered ${xhr.status}.`));
    };
    xhr.send(file);
  });
  return { xhr, job };
}
