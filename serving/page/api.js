// Requests to the server; errors are problem documents (RFC 9457).

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function headers() {
  const key = sessionStorage.getItem("key");
  return key ? { authorization: `Bearer ${key}` } : {};
}

async function send(path, body, signal) {
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers: body ? { "content-type": "application/json", ...headers() } : headers(),
      body: body && JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer.");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const fields = (problem.errors ?? []).map((one) => `${one.field}: ${one.message}`);
  const text = [problem.detail ?? `The server answered ${response.status}.`, ...fields].join(" ");
  throw new ApiError(response.status, text);
}

export async function listModels() {
  return (await (await send("v1/models")).json()).data;
}

/** Call an operation of a model and return the body of the response. */
export async function call(model, operation, body, signal) {
  const path = `v1/models/${encodeURIComponent(model)}/${operation}`;
  return (await send(path, body, signal)).json();
}

/** Ask a question about the documents: question, history and top_k. */
export async function ask(body) {
  return (await send("v1/answer", body)).json();
}

/** Call an operation and yield [event, data] of its server-sent events. */
export async function* stream(model, operation, body, signal) {
  const path = `v1/models/${encodeURIComponent(model)}/${operation}`;
  const response = await send(path, { ...body, stream: true }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const lines = event.split("\n").map((line) => /^(\w+): ?(.*)$/.exec(line));
      const fields = Object.fromEntries(lines.filter(Boolean).map(([, name, text]) => [name, text]));
      if (fields.data) yield [fields.event ?? "message", JSON.parse(fields.data)];
    }
  }
}
