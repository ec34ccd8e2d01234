// The API of one host: JSON over HTTP on a Unix socket that only its owner can open. It checks what
// comes in, hands it to the manager and turns errors into answers; it decides nothing. Whoever can
// open the socket may do everything: users and roles are not here yet, so the file's mode is the
// whole of the authentication, and no TCP port is ever opened.

import { once } from 'node:events';
import { unlink } from 'node:fs/promises';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import fastify, { type FastifyError, type FastifyReply } from 'fastify';
import type { Manager, VmRequest } from '../manager/api.ts';
import { type ErrorCode, errorCatalogue, HoldfastError } from '../model/errors.ts';
import { hostId } from '../model/ids.ts';
import type { Log } from '../ports/log.ts';
import { addDiskRoutes } from './disk-routes.ts';
import { createEventStreams } from './event-stream.ts';
import { listenPrivately } from './listen.ts';
import { compileCheck, problemsText } from './problems.ts';
import {
  type ClusterReply,
  type ErrorReply,
  type HostReply,
  NothingSchema,
  type RecoveryReply,
  RequiredRequestSchema,
  StartRequestSchema,
  StopRequestSchema,
  type TokenReply,
  type VmDetailReply,
  VmParamsSchema,
  type VmReply,
  type VmRequestBody,
  VmRequestSchema,
} from './schemas.ts';
import { addStorageRoutes } from './storage-routes.ts';

/** What the API offers besides the manager: matters of the host's own machine. */
export interface HostCommands {
  /** A token with which another machine can join the cluster; rejects where this host has not got
   * the key of the cluster's CA. */
  createToken(): Promise<string>;
}

export interface ApiOptions {
  readonly socketPath: string;
  readonly manager: Manager;
  readonly hostCommands: HostCommands;
  readonly log: Log;
  /** Between two signs of life on an event stream. */
  readonly heartbeatMs?: number;
}

export interface ApiServer {
  readonly socketPath: string;
  /** Answers what has begun, ends the event streams, removes the socket. */
  close(): Promise<void>;
}

const statuses: Partial<Record<ErrorCode, number>> = {
  'unknown-vm': 404,
  'unknown-host': 404,
  'unknown-object': 404,
  'name-in-use': 409,
  'bad-request': 400,
  'policy-unsatisfiable': 422,
  'lock-held': 409,
  'not-protected': 409,
  conflict: 409,
  'already-running': 409,
  'not-running': 409,
  'outcome-unknown': 504,
  fenced: 409,
  timeout: 504,
  unauthorized: 401,
  'no-capacity': 507,
  'disk-full': 507,
  inaccessible: 503,
  unreachable: 503,
  'no-master': 503,
  stopped: 503,
};

const maxBodyBytes = 256 * 1024;
const closePatienceMs = 2000;

export async function serveApi(options: ApiOptions): Promise<ApiServer> {
  const { manager, socketPath, log } = options;
  const app = createApp(options);
  const disks = addDiskRoutes(app, manager);
  const streams = createEventStreams(
    manager,
    options.heartbeatMs === undefined ? {} : { heartbeatMs: options.heartbeatMs },
  );
  app.get('/v1/events', (_request, reply) => {
    reply.hijack();
    streams.serve(reply.raw);
  });
  await app.ready();
  await listenPrivately(app.server, socketPath);
  log.info('the API answers', { socket: socketPath });

  let closing: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    streams.close();
    await disks.close();
    const closed = once(app.server, 'close');
    // Node removes the socket's file when the server closes.
    app.server.close();
    app.server.closeIdleConnections();
    // What has begun may finish, but a power-off that waits for its guest must not hold us up.
    const patience = setTimeout(() => app.server.closeAllConnections(), closePatienceMs);
    await closed;
    clearTimeout(patience);
    await app.close();
    await unlink(socketPath).catch(() => undefined);
  };
  return {
    socketPath,
    close() {
      closing ??= close();
      return closing;
    },
  };
}

function createApp({ manager, hostCommands, log }: ApiOptions) {
  const app = fastify({
    bodyLimit: maxBodyBytes,
    routerOptions: { maxParamLength: 256 },
  }).withTypeProvider<TypeBoxTypeProvider>();
  app.setValidatorCompiler(({ schema }) => {
    const check = compileCheck(schema);
    return (value: unknown) => {
      const problems = check(value);
      if (problems.length === 0) return { value };
      return { error: new HoldfastError('bad-request', `${capital(problemsText(problems))}.`) };
    };
  });
  app.setSerializerCompiler(() => (value) => JSON.stringify(value));
  app.setErrorHandler((error, request, reply) => {
    const { status, body } = errorAnswer(error);
    if (status >= 500) {
      const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
      log.warn('a request failed', { method: request.method, url: request.url, detail });
    }
    return answer(reply, status, body);
  });
  app.setNotFoundHandler((request, reply) =>
    answer(reply, 404, {
      code: 'bad-request',
      message: `There is no ${request.method} ${request.url} in this API.`,
      todo: 'Look whether client and daemon have the same version.',
    }),
  );
  // Commands without options may come without a body.
  app.addHook('preValidation', async (request) => {
    request.body ??= {};
  });

  app.get('/v1/cluster', (): ClusterReply => manager.status());
  app.get('/v1/hosts', (): readonly HostReply[] => manager.hosts());
  app.get('/v1/vms', (): readonly VmReply[] => manager.vms());
  app.get('/v1/recoveries', (): readonly RecoveryReply[] => manager.recoveries());
  app.get(
    '/v1/vms/:vm',
    { schema: { params: VmParamsSchema } },
    (request): VmDetailReply => manager.vm(request.params.vm),
  );
  app.post(
    '/v1/vms',
    { schema: { body: VmRequestSchema } },
    async (request, reply): Promise<VmReply> => {
      reply.code(201);
      return manager.createVm(toRequest(request.body));
    },
  );
  app.post(
    '/v1/vms/:vm/start',
    { schema: { params: VmParamsSchema, body: StartRequestSchema } },
    (request): Promise<VmReply> => {
      const { on } = request.body;
      return manager.startVm(request.params.vm, on === undefined ? {} : { on: hostId(on) });
    },
  );
  app.post(
    '/v1/vms/:vm/stop',
    { schema: { params: VmParamsSchema, body: StopRequestSchema } },
    (request): Promise<VmReply> =>
      manager.stopVm(request.params.vm, { force: request.body.force ?? false }),
  );
  app.post(
    '/v1/vms/:vm/required',
    { schema: { params: VmParamsSchema, body: RequiredRequestSchema } },
    (request): Promise<VmReply> => {
      const { disk, required } = request.body;
      return manager.setRequired(request.params.vm, disk, required);
    },
  );
  app.delete('/v1/vms/:vm', { schema: { params: VmParamsSchema } }, async (request) => {
    await manager.removeVm(request.params.vm);
    return {};
  });
  addStorageRoutes(app, manager);
  app.post('/v1/hosts/tokens', { schema: { body: NothingSchema } }, async (_request, reply) => {
    const token = await hostCommands.createToken();
    reply.code(201);
    return { token } satisfies TokenReply;
  });
  return app;
}

/** The names of hosts are checked by who knows the hosts. */
function toRequest({ hosts, objectHosts, ...rest }: VmRequestBody): VmRequest {
  const named = (names: readonly string[]) => names.map((name) => hostId(name));
  const byObject = Object.entries(objectHosts ?? {}).map(
    ([object, names]) => [object, named(names)] as const,
  );
  return {
    ...rest,
    ...(hosts === undefined ? {} : { hosts: named(hosts) }),
    ...(objectHosts === undefined ? {} : { objectHosts: Object.fromEntries(byObject) }),
  };
}

function answer(reply: FastifyReply, status: number, body: ErrorReply): FastifyReply {
  return reply.code(status).type('application/json; charset=utf-8').send(JSON.stringify(body));
}

function errorAnswer(error: unknown): { status: number; body: ErrorReply } {
  if (error instanceof HoldfastError) {
    const { code, message, todo } = error;
    return { status: statuses[code] ?? 500, body: { code, message, todo } };
  }
  // Fastify's own: not JSON, too large, wrong content type.
  const { statusCode, message } = error as FastifyError;
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    const body = { code: 'bad-request', message, todo: 'Send one JSON object.' };
    return { status: statusCode, body };
  }
  const text = error instanceof Error ? error.message : String(error);
  return {
    status: 500,
    body: {
      code: 'internal',
      message: `The daemon failed to answer: ${text}`,
      todo: errorCatalogue.internal,
    },
  };
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
