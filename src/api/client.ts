// The API from the other side: what the CLI, the demo and the tests talk through. A client knows the
// sockets of several hosts and uses the first that answers, so that it goes on working when a host is
// dead, or worse, frozen: then its kernel still accepts connections, and only a short time-out tells.
// A command that may have been sent is never sent again elsewhere: its outcome is unknown, and said.

import { type IncomingMessage, request } from 'node:http';
import { errorCatalogue } from '../model/errors.ts';
import type { ServeRequestBody } from './disk-schemas.ts';
import { type FollowOptions, readEvents } from './event-reader.ts';
import type {
  ClusterReply,
  ErrorReply,
  EventReply,
  HostReply,
  RecoveryReply,
  TokenReply,
  VmDetailReply,
  VmReply,
  VmRequestBody,
} from './schemas.ts';
import { followService, type ServeOptions } from './serve-client.ts';
import type {
  MetadataChangesBody,
  MetadataOutcomeReply,
  MetadataValuesReply,
  ObjectReply,
  PolicyReply,
  PolicyRequestBody,
} from './storage-schemas.ts';

/** An error that a host answered with, or that kept it from answering. */
export class ApiError extends Error {
  readonly code: string;
  readonly todo: string;

  constructor({ code, message, todo }: ErrorReply, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'ApiError';
    this.code = code;
    this.todo = todo;
  }
}

export interface ClientOptions {
  /** For how long a host may take to answer a question; a frozen one never does. */
  readonly questionTimeoutMs?: number;
  /** The same for a command, which may wait for a guest to switch itself off. */
  readonly commandTimeoutMs?: number;
}

export interface ObjectQuery {
  readonly vm?: string;
  /** Only those that are out of compliance with their policies. */
  readonly problems?: boolean;
}

export interface ApiClient {
  cluster(): Promise<ClusterReply>;
  hosts(): Promise<readonly HostReply[]>;
  /** For good; it must not answer any more. */
  removeHost(name: string): Promise<void>;
  vms(): Promise<readonly VmReply[]>;
  vm(nameOrId: string): Promise<VmDetailReply>;
  createVm(body: VmRequestBody): Promise<VmReply>;
  startVm(nameOrId: string, options?: { readonly on?: string }): Promise<VmReply>;
  stopVm(nameOrId: string, options?: { readonly force?: boolean }): Promise<VmReply>;
  setRequired(nameOrId: string, disk: string, required: boolean): Promise<VmReply>;
  /** `policy` is the name of one. */
  setDiskPolicy(nameOrId: string, disk: string, policy: string): Promise<ObjectReply>;
  removeVm(nameOrId: string): Promise<void>;
  /** Of the VMs named, or of all that are accessible. */
  metadata(service: string, key: string, vms?: readonly string[]): Promise<MetadataValuesReply>;
  setMetadata(changes: MetadataChangesBody['changes']): Promise<readonly MetadataOutcomeReply[]>;
  objects(which?: ObjectQuery): Promise<readonly ObjectReply[]>;
  /** By its id, or as `VM/DISK`. */
  object(name: string): Promise<ObjectReply>;
  policies(): Promise<readonly PolicyReply[]>;
  policy(name: string): Promise<PolicyReply>;
  createPolicy(body: PolicyRequestBody): Promise<PolicyReply>;
  setDefaultPolicy(name: string): Promise<PolicyReply>;
  removePolicy(name: string): Promise<void>;
  /** Serves a disk by the host that answers; resolves with why it ended, null: by `signal`. */
  serveDisk(
    place: { readonly vm: string; readonly disk: string },
    body: ServeRequestBody,
    options: ServeOptions,
  ): Promise<ErrorReply | null>;
  createToken(): Promise<string>;
  recoveries(): Promise<readonly RecoveryReply[]>;
  /** The events of one host that answers: the last ones first, then live. Ends only by `signal`. */
  events(options?: FollowOptions): AsyncGenerator<EventReply, void, void>;
}

export function createClient(sockets: readonly string[], options: ClientOptions = {}): ApiClient {
  const questionTimeoutMs = options.questionTimeoutMs ?? 5000;
  const commandTimeoutMs = options.commandTimeoutMs ?? 180_000;
  let preferred: string | null = null;

  /** Asks one host after the other: a question does no harm when it is asked twice. */
  async function askAny(
    path: string,
  ): Promise<{ readonly reply: unknown; readonly socket: string }> {
    const failures: string[] = [];
    const others = sockets.filter((socket) => socket !== preferred);
    for (const socket of preferred === null ? others : [preferred, ...others]) {
      try {
        const reply = await exchange(socket, 'GET', path, null, questionTimeoutMs);
        preferred = socket;
        return { reply, socket };
      } catch (error) {
        if (!(error instanceof NoAnswer)) throw error;
        failures.push(`${socket}: ${error.message}`);
        preferred = null;
      }
    }
    throw nobodyAnswers(failures);
  }

  const ask = async <Reply>(path: string): Promise<Reply> => (await askAny(path)).reply as Reply;

  /** Finds a host that answers, then sends the command to it, once. */
  async function command<Reply>(method: string, path: string, body: unknown): Promise<Reply> {
    const { socket } = await askAny('/v1/hosts');
    try {
      return (await exchange(socket, method, path, body, commandTimeoutMs)) as Reply;
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error;
      if (!error.maybeSent) throw nobodyAnswers([`${socket}: ${error.message}`]);
      throw new ApiError(
        {
          code: 'outcome-unknown',
          message: `The host at ${socket} stopped answering after it got the command (${error.message}).`,
          todo: errorCatalogue['outcome-unknown'],
        },
        { cause: error },
      );
    }
  }

  /** Only some hosts can, and a token too many does no harm: so each is asked in turn. */
  async function createToken(): Promise<string> {
    let refusal: Error | null = null;
    const failures: string[] = [];
    for (const socket of sockets) {
      try {
        const path = '/v1/hosts/tokens';
        return ((await exchange(socket, 'POST', path, {}, questionTimeoutMs)) as TokenReply).token;
      } catch (error) {
        if (error instanceof NoAnswer) failures.push(`${socket}: ${error.message}`);
        else refusal = error as Error;
      }
    }
    throw refusal ?? nobodyAnswers(failures);
  }

  const policyPath = (name: string): string => `/v1/policies/${encodeURIComponent(name)}`;
  const vmPath = (nameOrId: string): string => `/v1/vms/${encodeURIComponent(nameOrId)}`;
  return {
    cluster: () => ask('/v1/cluster'),
    hosts: () => ask('/v1/hosts'),
    vms: () => ask('/v1/vms'),
    vm: (nameOrId) => ask(vmPath(nameOrId)),
    createVm: (body) => command('POST', '/v1/vms', body),
    startVm: (nameOrId, body = {}) => command('POST', `${vmPath(nameOrId)}/start`, body),
    stopVm: (nameOrId, body = {}) => command('POST', `${vmPath(nameOrId)}/stop`, body),
    setRequired: (nameOrId, disk, required) =>
      command('POST', `${vmPath(nameOrId)}/required`, { disk, required }),
    setDiskPolicy: (nameOrId, disk, policy) =>
      command('POST', `${vmPath(nameOrId)}/disks/${encodeURIComponent(disk)}/policy`, { policy }),
    async removeVm(nameOrId) {
      await command('DELETE', vmPath(nameOrId), null);
    },
    metadata: (service, key, vms) => {
      const query = new URLSearchParams({ service, key });
      if (vms !== undefined) query.set('vms', vms.join(','));
      return ask(`/v1/metadata?${query.toString()}`);
    },
    setMetadata: (changes) => command('PUT', '/v1/metadata', { changes }),
    objects: ({ vm, problems = false } = {}) => {
      const query = new URLSearchParams(vm === undefined ? {} : { vm });
      if (problems) query.set('problems', 'true');
      return ask(`/v1/objects?${query.toString()}`);
    },
    object: (name) => ask(`/v1/objects/${encodeURIComponent(name)}`),
    policies: () => ask('/v1/policies'),
    policy: (name) => ask(policyPath(name)),
    createPolicy: (body) => command('POST', '/v1/policies', body),
    setDefaultPolicy: (name) => command('POST', `${policyPath(name)}/default`, {}),
    async removeHost(name) {
      await command('DELETE', `/v1/hosts/${encodeURIComponent(name)}`, null);
    },
    async removePolicy(name) {
      await command('DELETE', policyPath(name), null);
    },
    async serveDisk({ vm, disk }, body, follow) {
      const { socket } = await askAny('/v1/hosts');
      const path = `${vmPath(vm)}/disks/${encodeURIComponent(disk)}/serve`;
      return followService(socket, path, body, follow);
    },
    createToken,
    recoveries: () => ask('/v1/recoveries'),
    events: (follow) => readEvents(sockets, follow ?? {}),
  };
}

/** The host did not answer at all. */
class NoAnswer extends Error {
  readonly maybeSent: boolean;
  constructor(message: string, maybeSent: boolean) {
    super(message);
    this.maybeSent = maybeSent;
  }
}

function exchange(
  socketPath: string,
  method: string,
  path: string,
  body: unknown,
  timeoutMs: number,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const text = body === null ? null : JSON.stringify(body);
    let connected = false;
    const call = request({
      socketPath,
      method,
      path,
      agent: false,
      headers:
        text === null
          ? {}
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) },
    });
    const timer = setTimeout(
      () => call.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)),
      timeoutMs,
    );
    const fail = (error: NodeJS.ErrnoException): void => {
      clearTimeout(timer);
      reject(new NoAnswer(plain(error), connected));
    };
    call.once('socket', (socket) => socket.once('connect', () => (connected = true)));
    call.once('error', fail);
    call.once('response', (response) => {
      readText(response).then((answer) => {
        clearTimeout(timer);
        try {
          resolve(understand(response.statusCode ?? 0, answer));
        } catch (error) {
          reject(error);
        }
      }, fail);
    });
    call.end(text ?? undefined);
  });
}

function understand(status: number, text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ApiError(
      {
        code: 'internal',
        message: `The host answered ${status} with something that is no JSON: ${text.slice(0, 80)}`,
        todo: errorCatalogue.internal,
      },
      { cause: error },
    );
  }
  if (status >= 200 && status < 300) return value;
  throw new ApiError(value as ErrorReply);
}

async function readText(response: IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  let text = '';
  for await (const part of response) text += part;
  return text;
}

function nobodyAnswers(failures: readonly string[]): ApiError {
  return new ApiError({
    code: 'unreachable',
    message: `No host answers (${failures.join('; ') || 'no socket is known'}).`,
    todo: 'Start a host with `holdfast host run`, or name another socket with --socket or --context.',
  });
}

function plain(error: NodeJS.ErrnoException): string {
  if (error.code === 'ENOENT') return 'there is no such socket';
  if (error.code === 'ECONNREFUSED') return 'no daemon listens there any more';
  if (error.code === 'EACCES') return 'it belongs to another user';
  return error.message;
}
