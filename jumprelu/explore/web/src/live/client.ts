// Requests to the server of the page.

export interface Token {
  id: number;
  piece: string;
}

export interface NextToken extends Token {
  logit: number | null;
  probability: number | null;
}

export interface Status {
  ready: boolean;
  message: string;
  busy: boolean;
}

async function send(path: string, init: RequestInit): Promise<unknown> {
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if ((error as Error).name === 'AbortError') throw error;
    throw new Error(
      'The server does not answer: is "jumprelu explore --serve" still running?',
    );
  }
  let body: unknown = null;
  try {
    body = await response.json();
  } catch {
    // The status says enough.
  }
  if (!response.ok) {
    const message = (body as {error?: unknown} | null)?.error;
    throw new Error(
      typeof message === 'string'
        ? message
        : `The server answered ${response.status}.`,
    );
  }
  if (body === null) throw new Error('The server’s answer is not JSON.');
  return body;
}

export function post<T>(
  name: string,
  body: object,
  signal: AbortSignal,
): Promise<T> {
  return send(`api/${name}`, {
    method: 'POST',
    headers: {'content-type': 'application/json'},
    body: JSON.stringify(body),
    signal,
  }) as Promise<T>;
}

export function getStatus(signal: AbortSignal): Promise<Status> {
  return send('api/status', {signal}) as Promise<Status>;
}
