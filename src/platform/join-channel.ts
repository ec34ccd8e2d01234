// How a machine that is no host yet asks to become one: over the hosts' own TLS listener, with the
// certificate of a join token, which entitles to one line of JSON and its answer. The host speaks
// first, because only then does the other side know that its token was accepted (see TLS 1.3 in
// tls-transport.ts), and gets the reason rather than a reset connection where it was not.

import { connect, type TLSSocket } from 'node:tls';
import { asHoldfastError, type ErrorCode, errorCatalogue, HoldfastError } from '../model/errors.ts';
import type { HostId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import type { Log } from '../ports/log.ts';
import { parseAddress } from './address.ts';
import { readIdentity, type TlsCredentials } from './identity.ts';

/** The token that the certificate of the connection proves. */
export interface JoinTicket {
  readonly serial: string;
  /** The only host that may honour it. */
  readonly issuer: HostId;
}

/** Its rejection is the answer too; a HoldfastError arrives as such. */
export type JoinHandler = (request: JsonValue, ticket: JoinTicket) => Promise<JsonValue>;

const greeting = 'holdfast join 1\n';
const maxLineBytes = 1024 * 1024;
const timeoutMs = 10_000;

/** Serves one request and ends the connection. */
export function serveJoin(
  socket: TLSSocket,
  ticket: JoinTicket,
  onJoin: JoinHandler,
  log: Log,
): void {
  const timer = setTimeout(() => socket.destroy(), timeoutMs);
  socket.once('close', () => clearTimeout(timer));
  let asked = false;
  const answer = (value: JsonValue) => {
    if (!socket.destroyed) socket.end(`${JSON.stringify(value)}\n`);
  };
  const fail = (error: unknown) => {
    const { code, message } = asHoldfastError(error);
    log.warn(`join refused: ${message}`, { token: ticket.serial });
    answer({ error: { code, message } });
  };
  onLine(socket, (line) => {
    if (asked) return void socket.destroy();
    asked = true;
    let request: JsonValue;
    try {
      request = JSON.parse(line) as JsonValue;
    } catch (error) {
      return fail(new HoldfastError('bad-request', 'The request is not JSON', { cause: error }));
    }
    onJoin(request, ticket).then((value) => answer({ ok: value }), fail);
  });
  socket.write(greeting);
}

/**
 * Asks the host at `address`. Rejects with `unreachable` or `unauthorized` if the request was not
 * taken, `outcome-unknown` if the connection broke after it was sent, else with the host's answer.
 */
export function requestJoin(
  address: string,
  credentials: TlsCredentials,
  request: JsonValue,
): Promise<JsonValue> {
  return new Promise((resolve, reject) => {
    const target = parseAddress(address);
    if (target === null) throw new HoldfastError('bad-request', `${address} is not an address`);
    const socket = connect({
      ...target,
      ca: credentials.ca,
      cert: credentials.certificate,
      key: credentials.key,
      minVersion: 'TLSv1.3',
      checkServerIdentity: (_, certificate) =>
        readIdentity(certificate)?.role === 'host' ? undefined : new Error('it is no host'),
    });
    let sent = false;
    let failure: NodeJS.ErrnoException = new Error('it closed the connection');
    const timer = setTimeout(() => socket.destroy(new Error('no answer in time')), timeoutMs);
    socket.on('secureConnect', () => {
      // A host that does not like the token ends the connection without its greeting.
      failure = Object.assign(new Error('it does not accept the token'), { code: 'ERR_SSL_TOKEN' });
    });
    socket.on('error', (error) => {
      failure = error;
    });
    socket.on('close', () => {
      clearTimeout(timer);
      reject(brokenOff(address, sent, failure));
    });
    onLine(socket, (line) => {
      if (sent) {
        socket.destroy();
        return settle(line, address, resolve, reject);
      }
      if (`${line}\n` !== greeting) {
        return socket.destroy(new Error('it speaks another protocol'));
      }
      sent = true;
      failure = new Error('it closed the connection');
      socket.write(`${JSON.stringify(request)}\n`);
    });
  });
}

function settle(
  line: string,
  address: string,
  resolve: (answer: JsonValue) => void,
  reject: (error: HoldfastError) => void,
): void {
  try {
    const answer = JSON.parse(line) as {
      ok?: JsonValue;
      error?: { code: string; message: string };
    };
    if (answer.error === undefined) return resolve(answer.ok ?? null);
    const code = answer.error.code in errorCatalogue ? answer.error.code : 'bad-request';
    reject(new HoldfastError(code as ErrorCode, answer.error.message));
  } catch (cause) {
    reject(new HoldfastError('bad-request', `${address} did not answer in JSON`, { cause }));
  }
}

function brokenOff(address: string, sent: boolean, cause: NodeJS.ErrnoException): HoldfastError {
  if (sent) {
    const message = `${address} broke off before it answered: ${cause.message}`;
    return new HoldfastError('outcome-unknown', message, { cause });
  }
  if (/^ERR_SSL|CERT|SIGNATURE/.test(cause.code ?? '')) {
    const message = `${address} does not go with this token, or the token has expired`;
    return new HoldfastError('unauthorized', `${message}: ${cause.message}`, { cause });
  }
  const message = `${address} can not be reached: ${cause.message}`;
  return new HoldfastError('unreachable', message, { cause });
}

/** Calls with each line, one at a time; a line that is too long breaks the connection. */
function onLine(socket: TLSSocket, receive: (line: string) => void): void {
  let text = '';
  socket.setEncoding('utf8');
  socket.on('data', (piece: string) => {
    text += piece;
    if (text.length > maxLineBytes) return void socket.destroy();
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      const line = text.slice(0, end);
      text = text.slice(end + 1);
      receive(line);
    }
  });
}
