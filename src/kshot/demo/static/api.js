// Requests to kshot's JSON API; what goes wrong becomes an Error with the server's sentence.

export async function ask(path, body) {
  const options = body === undefined
    ? {}
    : {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)};
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is kshot demo still running?");
  }
  const content = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error(content.error ?? `The server answered ${response.status}.`);
    error.status = response.status;
    throw error;
  }
  return content;
}

let hiding;

export function tell(message) {
  const alert = document.getElementById("alert");
  alert.textContent = message;
  alert.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { alert.hidden = true; }, 7000);
}
